"""Latency: measured on the target, alone on it, against a frozen reference network.

    with Meter(parse_target("onnxruntime@cpu"), size=(180, 240), num_classes=11) as meter:
        latency = meter.measure(architecture)

How and why is said in `nas.latency.protocol`. Importing this loads neither torch nor a runtime.
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

    Raises: TargetError with the nearest known name.
    """
    target = Target.parse(text)
    runtimes.load(target)
    return target
