"""The nodes of the connected cluster: which there are, which are lost, and whether one is large enough."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from nas.search.cluster.configured_ray import ray

LOST_SECONDS = 300.0  # for another node that is large enough, where none is left
LOOK_SECONDS = 1.0  # between two looks at the nodes

Resources = Mapping[str, float]
"""Of a node, as Ray names them: CPU, GPU and what else it was given."""


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes as Ray describes them."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def is_lost(node: str, patience_seconds: float) -> bool:
    """Whether Ray finds out, in so much time, that the node with this number is lost."""
    until = time.monotonic() + patience_seconds
    while any(each["NodeID"] == node for each in alive_nodes()):
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_SECONDS)
    return True


class Room:
    """The nodes of the connected cluster that are large enough for something, busy or not; it looks at most once a
    second. A process that was there tells its end at once, and not why; that its node is lost Ray finds out later.
    """

    def __init__(self, needed: Resources) -> None:
        self._needed = {name: amount for name, amount in needed.items() if amount}
        self._looked, self._seen = -math.inf, time.monotonic()
        self._alive: dict[str, str] = {}  # addresses by number
        self.lost: list[str] = []
        """Addresses of those that are there no more."""

    def missing_seconds(self) -> float:
        """For how long there has been none."""
        now = time.monotonic()
        if now >= self._looked + LOOK_SECONDS:
            self._looked = now
            found = [node for node in alive_nodes() if self._is_in(node["Resources"])]
            alive = {node["NodeID"]: node["NodeManagerAddress"] for node in found}
            self.lost += [address for number, address in self._alive.items() if number not in alive]
            self._alive = alive
            if alive:
                self._seen = now
        return self._looked - self._seen

    def _is_in(self, resources: Resources) -> bool:
        return all(resources.get(name, 0) >= amount for name, amount in self._needed.items())
