"""The measuring process: `python -m nas.latency.worker TARGET HEIGHT WIDTH CLASSES [PATIENCE]`, driven by
`nas.latency.Meter`. PATIENCE is in seconds.

Requests and replies are JSON, one line each (`nas.latency.worker.replies`). When it has started it sends
{"ready": true, "program": "<name and version>", "environment": {...}}. A request

    {"networks": [{"architecture": "<yaml>", "weights": "<safetensors in base64>" or null}, ...], "within": 0.015}

is answered with {"latencies": ["<yaml>", ...]}; an entry {"graph": "<ONNX in base64>"} stands for a network given as an
ONNX graph. The process ends when its input is closed, whatever it is doing, since its owner is then gone, here or at
the other end of a connection. Output that libraries print goes to standard error.

On the CPU each network has a child process (`nas.latency.worker.children`), and this process only schedules them and
makes the records. On a GPU it prepares and times all networks itself.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import gc
import importlib
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from nas.errors import TargetError
from nas.host.memory import require_inference
from nas.latency import runtimes
from nas.latency.machine import device, lane
from nas.latency.protocol import PATIENCE_SECONDS
from nas.latency.protocol.ready import LocalNetwork, ReadyNetwork
from nas.latency.protocol.timer import InterleavedTimer
from nas.latency.target import Target
from nas.latency.worker import children
from nas.latency.worker.pipes import end_with_the_input, sayer
from nas.latency.worker.replies import PROGRAM, answer
from nas.latency.worker.session import ControlGraphs, Session, build, environment
from space import Architecture, strict

# Imported before any child is forked, so that no child repeats it and all are forked from the same state.
EARLY = ("nas.export.comparison", "nas.export.graph", "torch.onnx", "onnx", "numpy.ma", "numpy.random")


class Server:
    """Answers requests for one target, input size (H, W) and number of classes."""

    def __init__(self, target: Target, size: tuple[int, int], num_classes: int) -> None:
        self.target = target
        self.size = size
        self.num_classes = num_classes

    def start(self) -> dict[str, Any]:
        """Load what timing needs. Returns the first reply, with the environment that latencies will depend on."""
        # Before torch is imported: its thread pools copy the set of usable cores, and schedulers like Ray set a single
        # thread for everything they start.
        device.pin(self.target)
        if self.target.on_cuda:
            return {"ready": True, "program": PROGRAM, "environment": self._session.environment}
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(self.target.thread_count()))
        gc.disable()  # collecting garbage among imports that stay would take a tenth of the start
        for module in EARLY:
            importlib.import_module(module)
        runtimes.require(self.target)
        gc.freeze()  # a collection in the children would copy the memory that they share
        gc.enable()
        return {"ready": True, "program": PROGRAM, "environment": environment(self.target)}

    def measure(self, request: dict[str, Any], timer: InterleavedTimer) -> dict[str, Any]:
        """Latencies of the networks of a request."""
        _ = self._controls  # exported before any child is forked
        makers = [functools.partial(self._prepare, network) for network in request["networks"]]
        with contextlib.ExitStack() as stack:
            candidates: Sequence[ReadyNetwork]
            if self.target.on_cuda:
                candidates = [make() for make in makers]
            else:
                candidates = stack.enter_context(children.start(makers, at_once=self.target.thread_count()))
            return {"latencies": [strict.dump(latency) for latency in timer.measure(candidates, request["within"])]}

    def _prepare(self, network: dict[str, Any]) -> LocalNetwork:
        with lane.shared():
            if "graph" in network:
                return self._session.graph(base64.b64decode(network["graph"]))
            architecture = Architecture.from_yaml(network["architecture"], source="architecture")
            require_inference(architecture, self.size, self.num_classes, device=self.target.device, kind=TargetError)
            return self._session.candidate(build(architecture, network["weights"], self.num_classes))

    @functools.cached_property
    def _session(self) -> Session:
        """The session of this process; each child makes its own."""
        return Session(self.target, self.size, self._controls)

    @functools.cached_property
    def _controls(self) -> ControlGraphs | None:
        """The controls, exported in another process, since this one must not run any network."""
        if runtimes.reader(self.target) is None:
            return None

        def exported() -> dict[str, Any]:
            with lane.shared():
                graphs = ControlGraphs.exported(self.size)
            return {name: base64.b64encode(graph).decode("ascii") for name, graph in vars(graphs).items()}

        return ControlGraphs(**{name: base64.b64decode(text) for name, text in children.computed(exported).items()})


def main(arguments: list[str]) -> int:
    """Serve requests until the input ends."""
    end_with_the_input()
    say = sayer()
    target_text, height, width, classes, *patience = arguments
    target, size = Target.parse(target_text), (int(height), int(width))
    server = Server(target, size, int(classes))
    started = answer(server.start)
    if not say(started):
        return 1
    watch = runtimes.watch(runtimes.load(target))
    patience_seconds = float(patience[0]) if patience else PATIENCE_SECONDS
    timer = InterleavedTimer(target, size, started["environment"], watch, patience_seconds)
    for line in sys.stdin:
        say(answer(functools.partial(server.measure, json.loads(line), timer)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
