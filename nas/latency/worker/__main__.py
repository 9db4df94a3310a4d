"""The process that measures: `python -m nas.latency.worker TARGET HEIGHT WIDTH CLASSES [PATIENCE]`, driven by
`nas.latency.Meter`. PATIENCE is in seconds.

It speaks JSON, one line each way (`nas.latency.worker.replies`). On start it says {"ready": true, "program":
"<name and version>", "environment": {...}}. A request

    {"networks": [{"architecture": "<yaml>", "weights": "<safetensors in base64>" or null}, ...], "within": 0.015}

with {"graph": "<ONNX in base64>"} for a network that comes as one, is answered with {"latencies": ["<yaml>", ...]}. It
ends when its input does, whatever it is doing: nobody is left to ask, be it here or at the other end of a connection.
What libraries print goes to standard error.

On the CPU each network has a child process (`nas.latency.worker.children`), and this one only gives them turns and
writes the records. On a GPU it prepares and times them all itself.
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
from space import Architecture, TargetError, strict

# Imported before any child is forked: none does it again, nor is one forked from a process that changes by it.
EARLY = ("nas.export.comparison", "nas.export.graph", "torch.onnx", "onnx", "numpy.ma", "numpy.random")


def main(arguments: list[str]) -> int:
    """Serve requests until the input ends."""
    end_with_the_input()
    say = sayer()
    target_text, height, width, classes, *patience = arguments
    size, num_classes = (int(height), int(width)), int(classes)

    def start() -> dict[str, Any]:
        # Before torch is imported: its thread pools copy the cores that they may use, and schedulers like Ray set one
        # thread for all that they start.
        device.pin(target)
        if target.on_cuda:
            return {"ready": True, "program": PROGRAM, "environment": session().environment}
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(target.thread_count()))
        gc.disable()  # all of this stays: to look for garbage among it takes a tenth of the start
        for module in EARLY:
            importlib.import_module(module)
        runtimes.require(target)
        gc.freeze()  # nor do the children look there, which would copy what they share
        gc.enable()
        return {"ready": True, "program": PROGRAM, "environment": environment(target)}

    def prepare(asked: dict[str, Any]) -> LocalNetwork:
        with lane.training_step():  # preparing is no timing: it would disturb another's
            if "graph" in asked:
                return session().graph(base64.b64decode(asked["graph"]))
            architecture = Architecture.from_yaml(asked["architecture"], source="architecture")
            require_inference(architecture, size, num_classes, device=target.device, kind=TargetError)
            return session().candidate(build(architecture, asked["weights"], num_classes))

    @functools.cache
    def session() -> Session:
        """Of this process: each child makes its own."""
        return Session(target, size, controls())

    @functools.cache
    def controls() -> ControlGraphs | None:
        """Exported in a process of its own, since this one runs no network, and before any child is forked."""
        if runtimes.reader(target) is None:
            return None

        def exported() -> dict[str, Any]:
            with lane.training_step():
                graphs = ControlGraphs.exported(size)
            return {name: base64.b64encode(graph).decode("ascii") for name, graph in vars(graphs).items()}

        return ControlGraphs(**{name: base64.b64decode(text) for name, text in children.computed(exported).items()})

    def measure(request: dict[str, Any]) -> dict[str, Any]:
        controls()
        makers = [functools.partial(prepare, asked) for asked in request["networks"]]
        with contextlib.ExitStack() as stack:
            candidates: Sequence[ReadyNetwork]
            if target.on_cuda:
                candidates = [make() for make in makers]
            else:
                candidates = stack.enter_context(children.start(makers, at_once=target.thread_count()))
            return {"latencies": [strict.dump(latency) for latency in timer.measure(candidates, request["within"])]}

    target = Target.parse(target_text)
    started = answer(start)
    if not say(started):
        return 1
    watch = runtimes.watch(runtimes.load(target))
    patience_seconds = float(patience[0]) if patience else PATIENCE_SECONDS
    timer = InterleavedTimer(target, size, started["environment"], watch, patience_seconds)
    for line in sys.stdin:
        say(answer(functools.partial(measure, json.loads(line))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
