"""The default target: the fastest deployment runtime of this machine, found once by timing published networks on each.

Which runtime is faster depends on the device and on the kind of network; so one network of each family is timed, and
the geometric mean decides. The answer is kept under the device's name in the folder `defaults` of the cache; with
another version of a runtime, or another runtime installed, it is found anew.
"""

from __future__ import annotations

import hashlib
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import space
from nas.latency import runtimes
from nas.latency.machine import device_key
from nas.latency.meter import Meter
from nas.latency.target import Target
from nas.storage.files import write_text
from space import strict
from space.errors import UserError

DEPLOYMENT = (  # by kind of device, the better one first; of runtimes that are as fast as each other the first
    ("tensorrt:fp16@cuda:0", "cudagraph:fp16@cuda:0"),
    ("onnxruntime@cpu", "openvino@cpu"),
)
LAST_RESORT = "torch@cpu"
NETWORKS = ("erfnet-encoder", "fplnet-encoder", "ndnet45-ende", "swiftnet-mnv2")
SIZE = (180, 240)
CLASSES = 11
DEFAULT_WITHIN = 0.06  # of each latency
TIE = 0.03

MeasureTarget = Callable[[Target], float]
"""Geometric mean of the networks' milliseconds on a target."""


@dataclass(frozen=True, kw_only=True)
class DefaultTarget:
    """A target, and why it is the default here."""

    target: str
    reason: str


def default_target() -> Target:
    """The fastest deployment runtime that is ready on this machine. May have to time it first."""
    return Target.parse(choose().target)


def is_on_cuda() -> bool:
    """Whether the default target is a GPU's; nothing is timed for that."""
    targets = [Target.parse(text) for texts in DEPLOYMENT for text in texts]
    return any(target.on_cuda and _missing(target) is None for target in targets)


def choose(measure: MeasureTarget | None = None) -> DefaultTarget:
    """The default target with its reason: kept from last time, or found by timing."""
    for texts in DEPLOYMENT:
        ready = [target for target in map(Target.parse, texts) if _missing(target) is None]
        if len(ready) == 1:
            others = [
                f"{text} is not ready ({_missing(Target.parse(text))})" for text in texts if text != str(ready[0])
            ]
            return DefaultTarget(
                target=str(ready[0]), reason=f"the only one ready for this device; {', '.join(others)}"
            )
        if ready:
            return _fastest(ready, measure or _geometric_mean)
    return DefaultTarget(target=LAST_RESORT, reason="no deployment runtime is ready")


def _missing(target: Target) -> str | None:
    return runtimes.load(target).available(target)


def _fastest(targets: Sequence[Target], measure: MeasureTarget) -> DefaultTarget:
    keys = [device_key.name_of(device_key.key_of(runtimes.environment(target), SIZE)) for target in targets]
    name = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]
    file = device_key.folder("defaults") / f"{name}.yaml"
    try:
        return strict.parse(file.read_text("utf-8"), DefaultTarget, str(file))
    except (OSError, UserError, UnicodeDecodeError):  # a cache: what cannot be read is made again
        pass
    print(f"timing which of {', '.join(map(str, targets))} is the fastest here (once per device)", file=sys.stderr)
    choice = judge({str(target): measure(target) for target in targets})
    write_text(file, strict.dump(choice))
    return choice


def judge(milliseconds: Mapping[str, float]) -> DefaultTarget:
    """The fastest target; of those as fast as it, the first."""
    least = min(milliseconds.values())
    target = next(name for name, value in milliseconds.items() if value <= (1 + TIE) * least)
    others = ", ".join(f"{name} {value:.2f} ms" for name, value in milliseconds.items() if name != target)
    return DefaultTarget(
        target=target,
        reason=f"{milliseconds[target]:.2f} ms, {others}: geometric mean of {len(NETWORKS)} published networks at "
        f"{SIZE[0]}x{SIZE[1]}",
    )


def _geometric_mean(target: Target) -> float:
    networks = [space.load(name) for name in NETWORKS]
    with Meter(target, SIZE, CLASSES) as meter:
        latencies = meter.measure_together(networks, within=DEFAULT_WITHIN)
    return math.exp(statistics.fmean(math.log(latency.p50_milliseconds) for latency in latencies))
