"""The agent: what measures on a host that has nothing of ours, sent there by `nas.latency.worker.parcel`.

The same protocol, the same children as in `nas.latency.worker.__main__`, without what builds networks: those come as
ONNX graphs. So all that is imported here is the standard library (of Python 3.10), NumPy and the runtime.

It speaks JSON, one line each way (`nas.latency.worker.replies`), driven by `nas.latency.worker.sender`. On start it
says {"ready": true, "program": ..., "environment": {...}}. Then come

    {"size": [H, W], "reference": {...}, "canary": {...}, ...}  once, answered with the whole environment
    {"do": "memory"}                                           is answered with bytes, free and in all
    {"do": "prepare", "graphs": ["<ONNX in base64>", ...]}     with the labels that each gives, to be compared there
    {"do": "time", "within": 0.015}                            with the latencies of what was prepared, as JSON in texts

It ends when its input does, and leaves the device's anchor in the cache folder there.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import importlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from nas.errors import TargetError
from nas.host.room import free_bytes, whole_bytes
from nas.latency.machine import device, device_key, lane
from nas.latency.machine.watch import THIS_MACHINE
from nas.latency.protocol.controls import Controls
from nas.latency.protocol.ready import LocalNetwork, ReadyNetwork
from nas.latency.protocol.timer import InterleavedTimer
from nas.latency.target import Target
from nas.latency.worker import children
from nas.latency.worker.arrays import IMAGE, LABELS, array_of, values_of
from nas.latency.worker.pipes import end_with_the_input, sayer
from nas.latency.worker.replies import PROGRAM, answer

if TYPE_CHECKING:
    from nas.latency.runtimes import GraphRuntime

EARLY = ("numpy.ma", "numpy.random")  # imported before any child is forked


def main(order: Mapping[str, Any]) -> int:
    """Serve requests until the input ends. `order` names the module of the runtime and the target."""
    end_with_the_input()
    say = sayer()

    def start() -> dict[str, Any]:
        target = Target.parse(order["target"])
        device.pin(target)
        os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(target.thread_count()))
        for module in EARLY:
            importlib.import_module(module)
        environment = device.describe(target) | {order["library"]: _version(order["library"])}
        return {"ready": True, "program": PROGRAM, "environment": environment}

    started = answer(start)
    if not say(started):
        return 1
    first = sys.stdin.buffer.readline()
    runtime = cast("GraphRuntime", importlib.import_module(order["runtime"]))
    bench = Bench(Target.parse(order["target"]), runtime, started["environment"], json.loads(first))
    say({"environment": bench.environment})
    for line in sys.stdin.buffer:
        say(answer(functools.partial(bench.answer, json.loads(line))))
    return 0


class Bench:
    """Where networks are timed: the target, what every candidate is timed beside, and the candidates of the moment."""

    def __init__(
        self, target: Target, runtime: GraphRuntime, environment: Mapping[str, str], given: Mapping[str, Any]
    ) -> None:
        size = (int(given["size"][0]), int(given["size"][1]))
        self.environment = dict(environment) | given["environment"]
        self._target = target
        self._runtime = runtime
        self._key = device_key.key_of_anchor(self.environment, target, size)
        self._timer = InterleavedTimer(target, size, self.environment, THIS_MACHINE, given["patience_seconds"])
        self._graphs = [base64.b64decode(given[name]["graph"]) for name in ("reference", "canary")]
        # A copy: some runtimes hold only arrays that could be written to.
        self._images = [np.array(array_of(given[name]["image"], IMAGE)) for name in ("reference", "canary")]
        self._networks: Sequence[ReadyNetwork] = ()
        self._children = contextlib.ExitStack()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """What a request asks for.

        Raises: UserError when the user can put it right.
        """
        match request["do"]:
            case "memory":
                self.clear()
                return {"free_bytes": free_bytes(), "whole_bytes": whole_bytes()}
            case "prepare":
                return self._prepare([base64.b64decode(graph) for graph in request["graphs"]])
            case wanted:
                assert wanted == "time"
                latencies = self._timer.measure(self._networks, request["within"])
                self.clear()
                return {"latencies": [json.dumps(dataclasses.asdict(latency)) for latency in latencies]}

    def clear(self) -> None:
        """End the candidates' processes."""
        self._networks = ()
        self._children.close()

    def _prepare(self, graphs: Sequence[bytes]) -> dict[str, Any]:
        self.clear()
        makers = [functools.partial(self._candidate, graph) for graph in graphs]
        started = children.start(makers, at_once=self._target.thread_count())
        networks = self._children.enter_context(started)
        with lane.shared():
            labels = [values_of(network.labels(), LABELS) for network in networks]
        self._networks = networks
        return {"labels": labels}

    def _candidate(self, graph: bytes) -> LocalNetwork:
        """In a process of its own: `nas.latency.worker.session.Session` of graphs."""
        with lane.shared():
            self._runtime.settle(self._target)
            image, canary_image = self._images
            beside = self._target.of_reference()
            reference = self._runtime.open_graph(self._graphs[0], image, beside)
            canary = self._runtime.open_graph(self._graphs[1], canary_image, beside)
            controls = Controls(
                reference=reference,
                canary=canary,
                key=self._key,
                threads=self._target.thread_count(),
                device=self._target.device,
            )
            return LocalNetwork(self._runtime.open_graph(graph, image, self._target), controls)


def _version(library: str) -> str:
    try:
        return str(importlib.import_module(library).__version__)
    except ImportError as error:
        raise TargetError(
            f"{library} is installed for {sys.executable}, but cannot be imported: {error}; install it again"
        ) from None
