"""Latency: measured on the target, alone on it, against a frozen reference network.

    with Meter(parse_target("onnxruntime@cpu"), size=(180, 240), num_classes=11) as meter:
        latency = meter.measure(architecture)

How and why is said in `nas.latency.protocol`. Importing this loads neither torch nor a runtime.

Terms:

    target      a runtime at a precision on a device, such as `onnxruntime@cpu:1`
    runtime     what executes a network; a file in `runtimes`, or a module of another package
    candidate   a network that is prepared on the target, to be timed
    reference   the frozen network that every candidate is timed against; the `ratio` is candidate over reference
    canary      a second frozen network, which shows how far apart a virtual machine's cores are
    controls    reference and canary, prepared on the target
    pair        a call of the candidate and a call of the reference, one after the other
    block       some pairs in a row, about a tenth of a second; `quiet` when nothing disturbed the reference meanwhile
    anchor      what the reference usually takes on the device, measured once and kept; a ratio times it is
                milliseconds
    flagged     reasons not to trust a number; empty when it was measured on an undisturbed machine
    worker      the process that measures; what it has prepared is a `Session`
    agent       the worker of a host that has nothing of ours: it is sent there, and given graphs
    meter       what others measure by: it starts a worker and asks it
    budget      the most milliseconds that a network may take
    work        what the layers of a network ask of the hardware; a `LatencyTable` holds the prices of work on a device

Measuring touches the hardware, estimating reads a table. Each part uses only parts above it:

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
    estimates       careful, meter, worker, protocol, machine, record, target
    default         careful, meter, worker, runtimes, machine, target
    layers          machine

Of `nas` they use `nas.host`, `nas.storage`, `nas.export` and `nas.terminal`, and of the rest `space`.
"""

from __future__ import annotations

from nas.latency import runtimes
from nas.latency.default import default_target
from nas.latency.meter import Meter, MeterOf
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError

__all__ = ["Meter", "MeterOf", "WorkerError", "default_target", "parse_target"]


def parse_target(text: str) -> Target:
    """The target that `text` names, of a runtime that exists (it may still have to be installed).

    Raises: TargetError when it names none; the message has the nearest known name.
    """
    target = Target.parse(text)
    runtimes.load(target)
    return target
