"""Installed: measures in a process that has this package, here or on another host (`nas.latency.worker.__main__`)."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.errors import TargetError
from nas.latency.target import Target
from nas.latency.worker.connection import Connection
from nas.latency.worker.replies import PROGRAM, accept

if TYPE_CHECKING:
    from space.architecture import Architecture


class Installed:
    """Measures on one target at one input size (H, W); see `nas.latency.meter.Way`."""

    def __init__(self, target: Target, size: tuple[int, int], num_classes: int, patience_seconds: float) -> None:
        self._target = target
        self._arguments = [str(each) for each in (*size, num_classes, patience_seconds)]
        self.advice = (
            "check that `ssh {host} python3 -m nas.latency.worker` finds this package there (FRAMEBUDGET_PYTHON names "
            f"another python3; {target.runtime} needs this package, runtimes that read ONNX do not), and that ssh asks "
            "for no password"
        )

    def connect(self) -> Connection:
        """See `nas.latency.meter.Way`."""
        # -P: files in the current folder (random.py, onnx.py) must not be imported as modules
        words = ["-P", "-m", "nas.latency.worker", str(self._target.on_its_host())]
        return Connection(self._target, [*words, *self._arguments])

    def set_up(self, connection: Connection, limit_seconds: float) -> dict[str, str]:
        """See `nas.latency.meter.Way`."""
        started = accept(connection.hear(limit_seconds))
        there = started.get("program", "an earlier version")
        if there != PROGRAM:
            raise TargetError(
                f"{self._target.host} has {there}, this is {PROGRAM}, and their latencies cannot be compared; install "
                "the same there"
            )
        return dict(started["environment"])

    def measure(
        self,
        connection: Connection,
        networks: Sequence[tuple[Architecture, str | None]],
        within: float,
        limit_seconds: float,
    ) -> list[str]:
        """See `nas.latency.meter.Way`."""
        entries = [{"architecture": architecture.to_yaml(), "weights": weights} for architecture, weights in networks]
        connection.say({"networks": entries, "within": within})
        latencies: list[str] = accept(connection.hear(limit_seconds))["latencies"]
        return latencies

    def measure_graph(self, connection: Connection, graph: bytes, within: float, limit_seconds: float) -> list[str]:
        """See `nas.latency.meter.Way`."""
        connection.say({"networks": [{"graph": base64.b64encode(graph).decode("ascii")}], "within": within})
        latencies: list[str] = accept(connection.hear(limit_seconds))["latencies"]
        return latencies
