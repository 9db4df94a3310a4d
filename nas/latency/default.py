"""The default target: the fastest deployment runtime of this machine, found once by timing published networks on each.

Which runtime is faster depends on the device and on the kind of network. Therefore one network of each family is timed,
and the geometric mean decides. The choice is kept under the device's name, without that of its host, in the folder
`defaults` of the cache, and is made anew when another runtime or another version of one is installed. A choice made on
a busy machine is kept only if a quiet machine would surely make the same one.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import space
from nas.latency import runtimes
from nas.latency.careful import FAULTS
from nas.latency.machine import device_key
from nas.latency.meter import Meter
from nas.latency.target import Target
from nas.latency.worker.replies import reason_of, was_ended
from nas.storage.files import write_text
from nas.storage.records import cached_record
from space import strict

DEPLOYMENT = (  # kinds of devices, the better one first; of runtimes that are equally fast the first is chosen
    ("tensorrt:fp16@cuda:0", "cudagraph:fp16@cuda:0"),
    ("onnxruntime@cpu", "openvino@cpu", "openvino:bf16@cpu"),
)
LAST_RESORT = "torch@cpu"
NETWORKS = ("erfnet-encoder", "fplnet-encoder", "ndnet45-ende", "swiftnet-mnv2")
SIZE = (180, 240)
CLASSES = 11
DEFAULT_WITHIN = 0.06  # half of the 95 % interval of each latency, as a share of it
TIE = 0.03  # share by which a target may be slower than the fastest and still count as equally fast
CHOICE_PATIENCE_SECONDS = 1.0  # per network on a busy machine: an unsettled choice is made anew the next time


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Geometric mean of the latencies of the networks on one target."""

    milliseconds: float
    low: float
    """Geometric mean of the lower ends of their 95 % intervals."""
    high: float
    """Geometric mean of the upper ends of their 95 % intervals."""
    flagged: bool = False
    """Whether the machine was busy while any of them was timed."""


MeasureTarget = Callable[[Target], Speed]


@dataclass(frozen=True, kw_only=True)
class DefaultTarget:
    """A target, and why it is the default here."""

    target: str
    reason: str

    def __post_init__(self) -> None:
        Target.parse(self.target)


def default_target() -> Target:
    """The fastest deployment runtime that is ready on this machine, found by timing if it is not known yet."""
    return Target.parse(choose().target)


def is_on_cuda() -> bool:
    """Whether the default target is on a GPU, found without timing anything."""
    targets = [Target.parse(text) for texts in DEPLOYMENT for text in texts]
    return any(target.on_cuda and _missing(target) is None for target in targets)


def choose(measure: MeasureTarget | None = None) -> DefaultTarget:
    """The default target with its reason: kept from last time, or found by timing. Prints which runtimes are broken."""
    _print_broken()
    return known() or _fastest(ready_targets(), measure or _geometric_mean)


def known() -> DefaultTarget | None:
    """The default target with its reason; None if it has to be found by timing the `ready_targets`."""
    ready = ready_targets()
    if not ready:
        return DefaultTarget(target=LAST_RESORT, reason="no deployment runtime is ready")
    if len(ready) > 1:
        kept = cached_record(_file(ready), DefaultTarget)
        return kept if kept is not None and kept.target in map(str, ready) else None
    texts = next(texts for texts in DEPLOYMENT if str(ready[0]) in texts)
    others = [f"{text} is not ready ({_missing(Target.parse(text))})" for text in texts if text != str(ready[0])]
    return DefaultTarget(target=str(ready[0]), reason=f"the only one ready for this device; {', '.join(others)}")


def ready_targets() -> list[Target]:
    """The deployment runtimes that are ready on the best kind of device that has any; the default is one of them."""
    kinds = ([target for target in map(Target.parse, texts) if _missing(target) is None] for texts in DEPLOYMENT)
    return next(filter(None, kinds), [])


def ready_on_cpu() -> list[Target]:
    """The deployment runtimes of the CPU that are ready, each in every precision that needs no calibration."""
    return [target for target in map(Target.parse, DEPLOYMENT[-1]) if _missing(target) is None]


def _missing(target: Target) -> str | None:
    return runtimes.missing(target)


def _print_broken() -> None:
    """Print the broken runtimes for the kind of device that the ready ones are on, and for better kinds."""
    ready = ready_targets()
    for texts in DEPLOYMENT:
        targets = [Target.parse(text) for text in texts]
        reasons = {target.runtime: reason for target in targets if (reason := runtimes.broken(target)) is not None}
        for runtime, reason in reasons.items():
            print(f"left out: {runtime}: {reason}", file=sys.stderr)
        if not set(targets).isdisjoint(ready):
            return


def _file(targets: Sequence[Target]) -> Path:
    """File of the choice between these targets."""
    keys = [device_key.name_of(device_key.key_but_host(runtimes.environment(target), SIZE)) for target in targets]
    name = hashlib.sha256(" ".join(keys).encode()).hexdigest()[:12]
    return device_key.folder("defaults") / f"{name}.yaml"


def _fastest(targets: Sequence[Target], measure: MeasureTarget) -> DefaultTarget:
    print(f"timing which of {', '.join(map(str, targets))} is the fastest here (once per device)", file=sys.stderr)
    speeds: dict[str, Speed] = {}
    refused: Exception | None = None
    for target in targets:
        try:
            speeds[str(target)] = measure(target)
        except FAULTS as error:  # for example wrong labels in bfloat16, or a runtime that crashes
            if was_ended(error):
                raise
            print(f"left out: {target}: {reason_of(error)}", file=sys.stderr)
            refused = error
    if not speeds:
        assert refused is not None
        raise refused
    choice = judge({name: speed.milliseconds for name, speed in speeds.items()})
    if is_settled(choice.target, speeds):
        write_text(_file(targets), strict.dump(choice))
    else:
        print(
            f"the machine was busy: {choice.target} is used this time, and the choice is made anew the next time",
            file=sys.stderr,
        )
    return choice


def is_settled(chosen: str, speeds: Mapping[str, Speed]) -> bool:
    """Whether a quiet machine would choose the same: nothing is flagged, or the chosen interval is below all others."""
    others = [speed for name, speed in speeds.items() if name != chosen]
    flagged = any(speed.flagged for speed in speeds.values())
    return not flagged or all(speeds[chosen].high < other.low for other in others)


def judge(milliseconds: Mapping[str, float]) -> DefaultTarget:
    """The fastest target; of those that are equally fast, the first."""
    least = min(milliseconds.values())
    target = next(name for name, value in milliseconds.items() if value <= (1 + TIE) * least)
    others = ", ".join(f"{name} {value:.2f} ms" for name, value in milliseconds.items() if name != target)
    return DefaultTarget(
        target=target,
        reason=f"{milliseconds[target]:.2f} ms, {others}: geometric mean of {len(NETWORKS)} published networks at "
        f"{SIZE[0]}x{SIZE[1]}",
    )


def _geometric_mean(target: Target) -> Speed:
    networks = [space.load(name) for name in NETWORKS]
    with Meter(target, SIZE, CLASSES, patience_seconds=CHOICE_PATIENCE_SECONDS) as meter:
        latencies = meter.measure_together(networks, within=DEFAULT_WITHIN)
    intervals = [latency.interval() for latency in latencies]
    return Speed(
        milliseconds=statistics.geometric_mean(latency.p50_milliseconds for latency in latencies),
        low=statistics.geometric_mean(low for low, _ in intervals),
        high=statistics.geometric_mean(high for _, high in intervals),
        flagged=any(latency.flagged for latency in latencies),
    )
