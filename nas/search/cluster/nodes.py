"""The nodes of the connected cluster: which are alive, which are lost, and whether one is large enough."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from nas.search.cluster.configured_ray import ray

LOST_SECONDS = 300.0  # time to wait for another node that is large enough, when none is left
LOOK_SECONDS = 1.0  # between two checks of the nodes

Resources = Mapping[str, float]
"""Resources of a node as Ray names them: CPU, GPU and any custom ones."""


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes as Ray describes them."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def is_lost(node: str, patience_seconds: float) -> bool:
    """Whether Ray finds out within `patience_seconds` that the node with this id is lost."""
    until = time.monotonic() + patience_seconds
    while any(each["NodeID"] == node for each in alive_nodes()):
        if time.monotonic() >= until:
            return False
        time.sleep(LOOK_SECONDS)
    return True


class NodeWatcher:
    """Watches the nodes of the connected cluster that are large enough for some work, busy or not; checks them at most
    once a second.

    The end of a process on a node is known at once, but without the reason; Ray reports a lost node only later.
    """

    def __init__(self, needed: Resources) -> None:
        self._needed = {name: amount for name, amount in needed.items() if amount}
        self._looked, self._seen = -math.inf, time.monotonic()
        self._alive: dict[str, str] = {}  # address by node id
        self.lost: list[str] = []
        """Addresses of the nodes lost so far."""

    def missing_seconds(self) -> float:
        """Seconds since a large enough node was last seen; 0 while there is one."""
        now = time.monotonic()
        if now >= self._looked + LOOK_SECONDS:
            self._looked = now
            found = [node for node in alive_nodes() if self._is_in(node["Resources"])]
            alive = {node["NodeID"]: node["NodeManagerAddress"] for node in found}
            self.lost += [address for node_id, address in self._alive.items() if node_id not in alive]
            self._alive = alive
            if alive:
                self._seen = now
        return self._looked - self._seen

    def _is_in(self, resources: Resources) -> bool:
        return all(resources.get(name, 0) >= amount for name, amount in self._needed.items())
