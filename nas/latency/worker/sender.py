"""Sender: measures on a host where this package is not installed. Networks are built and exported here and timed there.

It sends the agent (`nas.latency.worker.agent`) and the graphs of the controls once, then the graphs of candidates. The
labels that these graphs give there are compared with PyTorch's here before anything is timed.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from nas.errors import TargetError
from nas.host.memory import Room, require_inference
from nas.latency.machine import lane
from nas.latency.protocol import VERSION
from nas.latency.runtimes import Reader
from nas.latency.target import Target
from nas.latency.worker import parcel
from nas.latency.worker.arrays import IMAGE, LABELS, array_of, values_of
from nas.latency.worker.connection import Connection
from nas.latency.worker.replies import PROGRAM, accept
from nas.latency.worker.session import build, check_labels, noise

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from space.architecture import Architecture


class Sender:
    """Measures on one target of another host at one input size (H, W); see `nas.latency.meter.Way`."""

    advice = (
        "check that `ssh {host} python3 --version` answers (FRAMEBUDGET_PYTHON there names another python3), and that "
        "ssh asks for no password"
    )

    def __init__(
        self, target: Target, size: tuple[int, int], num_classes: int, patience_seconds: float, reader: Reader
    ) -> None:
        self._target = target
        self._size = size
        self._num_classes = num_classes
        self._patience_seconds = patience_seconds
        self._code, self._parcel = parcel.opening(reader, str(target.on_its_host()))

    def connect(self) -> Connection:
        """See `nas.latency.meter.Way`."""
        return Connection(self._target, ["-c", f"'{self._code}'"])

    def set_up(self, connection: Connection, limit_seconds: float) -> dict[str, str]:
        """See `nas.latency.meter.Way`."""
        from nas.export import graph
        from nas.latency.protocol.reference import CANARY_SIZE, NAME, Canary, Reference

        connection.send(self._parcel)
        started = accept(connection.hear(limit_seconds))
        assert started["program"] == PROGRAM, "the agent is this code"
        with _working():
            controls = {
                name: {"graph": _text_of(network, size, "fp32"), "image": values_of(noise(size).numpy(), IMAGE)}
                for name, network, size in (
                    ("reference", Reference(), self._size),
                    ("canary", Canary(), CANARY_SIZE),
                )
            }
        connection.say(
            {
                "size": self._size,
                "patience_seconds": self._patience_seconds,
                "environment": graph.versions() | {"reference": NAME, "protocol": VERSION},
            }
            | controls
        )
        return dict(accept(connection.hear(limit_seconds))["environment"])

    def measure(
        self,
        connection: Connection,
        networks: Sequence[tuple[Architecture, str | None]],
        within: float,
        limit_seconds: float,
    ) -> list[str]:
        """See `nas.latency.meter.Way`."""
        connection.say({"do": "memory"})
        counted = accept(connection.hear(limit_seconds))
        room = Room(host=self._target.host, free_bytes=counted["free_bytes"], whole_bytes=counted["whole_bytes"])
        built: list[nn.Module] = []
        graphs = []
        for architecture, weights in networks:
            with _working():
                for there in (None, room):
                    require_inference(architecture, self._size, self._num_classes, kind=TargetError, there=there)
                built.append(build(architecture, weights, self._num_classes))
                graphs.append(_text_of(built[-1], self._size, self._target.precision))
        for network, given in zip(built, self._prepared(connection, graphs, limit_seconds), strict=True):
            with _working():
                check_labels(network, noise(self._size), _tensor(given), self._target)
        return self._time(connection, within, limit_seconds)

    def measure_graph(self, connection: Connection, graph: bytes, within: float, limit_seconds: float) -> list[str]:
        """See `nas.latency.meter.Way`."""
        self._prepared(connection, [base64.b64encode(graph).decode("ascii")], limit_seconds)
        return self._time(connection, within, limit_seconds)

    def _prepared(self, connection: Connection, graphs: Sequence[str], limit_seconds: float) -> list[NDArray[Any]]:
        """Have the agent prepare graphs for timing. Returns the labels (1, H, W) that each gives there."""
        connection.say({"do": "prepare", "graphs": graphs})
        return [array_of(values, LABELS) for values in accept(connection.hear(limit_seconds))["labels"]]

    def _time(self, connection: Connection, within: float, limit_seconds: float) -> list[str]:
        connection.say({"do": "time", "within": within})
        latencies: list[str] = accept(connection.hear(limit_seconds))["latencies"]
        return latencies


@contextlib.contextmanager
def _working() -> Iterator[None]:
    """For work on this machine: it waits for timings, and leaves the global random state as it was."""
    import torch

    with lane.shared(), torch.random.fork_rng(devices=[]):
        yield


def _text_of(network: nn.Module, size: tuple[int, int], precision: str) -> str:
    from nas.export.quantized import graph_in

    return base64.b64encode(graph_in(precision, network.eval(), noise(size), elsewhere=True)).decode("ascii")


def _tensor(array: Any) -> Tensor:
    import torch

    return torch.from_numpy(array.copy())
