"""The agent: the measuring process on a host where this package is not installed; `nas.latency.worker.parcel` sends it.

It follows the same protocol with the same children as `nas.latency.worker.__main__`, but does not build networks: it
receives them as ONNX graphs. It therefore imports only the standard library (of Python 3.10), NumPy and the runtime.

Requests and replies are JSON, one line each (`nas.latency.worker.replies`); `nas.latency.worker.sender` drives it. When
it has started it sends {"ready": true, "program": ..., "environment": {...}}. Then it receives

    {"size": [H, W], "reference": {...}, "canary": {...}, ...}  once; answered with the complete environment
    {"do": "memory"}                                           answered with free and total bytes
    {"do": "prepare", "graphs": ["<ONNX in base64>", ...]}     answered with the labels of each graph, to be checked
    {"do": "time", "within": 0.015}                            answered with the latencies of the prepared graphs, each
                                                               as JSON in a string

It ends when its input is closed, and leaves the device's anchor in the cache folder there.
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
    """Answer requests until the input is closed. `order` names the target and the runtime's module and library."""
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
    """The target, the controls that run beside every candidate, and the candidates prepared at the moment."""

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
        # Copies, since some runtimes accept only writable arrays.
        self._images = [np.array(array_of(given[name]["image"], IMAGE)) for name in ("reference", "canary")]
        self._networks: Sequence[ReadyNetwork] = ()
        self._children = contextlib.ExitStack()

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a request.

        Raises: UserError when the user can correct the cause.
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
        """Prepare a candidate in its own process, as `nas.latency.worker.session.Session` does, but from graphs."""
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
