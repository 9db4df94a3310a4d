"""Latency of a network: measured on its target, alone there, against a frozen reference network.

    with Meter(parse_target("onnxruntime@cpu"), size=(180, 240), num_classes=11) as meter:
        latency = meter.measure(architecture)

`nas.latency.protocol` explains how and why. Importing this package loads neither torch nor a runtime.

Terms:

    target      a runtime at a precision on a device, such as `onnxruntime@cpu:1`
    runtime     the library that executes a network; a file in `runtimes`, or a module of another package
    candidate   a network that is prepared on the target, to be timed
    reference   the frozen network that every candidate is timed against; the `ratio` is candidate over reference
    canary      a second frozen network, which shows how far apart a virtual machine's cores are
    controls    reference and canary, prepared on the target
    pair        a call of the candidate and a call of the reference, one after the other
    block       some pairs in a row, about a tenth of a second; `quiet` if nothing disturbed the reference meanwhile
    anchor      the usual latency of the reference on the device, measured once and kept; a ratio times the anchor is
                milliseconds
    flagged     reasons to distrust a number; empty if it was measured on an undisturbed machine
    worker      the process that measures; what it times beside is a `Session`
    agent       the worker on a host where this package is not installed: it is sent there, and receives ONNX graphs
    meter       the interface to measurements: it starts a worker and sends it requests
    budget      the largest latency that a network may have
    work        what the layers of a network demand of the hardware; a `LatencyTable` holds prices of work on a device

Measuring uses the hardware, estimating reads a table. Each part uses only parts above it:

    target
    record          target
    budget          record, target
    machine         target
    runtimes        machine, target
    protocol        machine, record, target
    worker          protocol, runtimes, machine, target
    scope           protocol
    meter           scope, worker, protocol, runtimes, record, target
    careful         meter, worker, protocol, record
    several         protocol, record, target
    rounds          several, careful, meter, scope, budget, record, target
    estimates       careful, meter, worker, protocol, machine, record, target
    default         careful, meter, worker, runtimes, machine, target
    layers          machine

Outside this package they use `nas.host`, `nas.storage`, `nas.export`, `nas.terminal` and `space`.
"""

from __future__ import annotations

from nas.latency import runtimes
from nas.latency.default import default_target
from nas.latency.meter import Meter, MeterOf
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError

__all__ = ["Meter", "MeterOf", "WorkerError", "default_target", "parse_target"]


def parse_target(text: str) -> Target:
    """The target that `text` names. Its runtime exists, but may not be installed.

    Raises: TargetError when `text` names no target; the message suggests the nearest known name.
    """
    target = Target.parse(text)
    runtimes.load(target)
    return target
