"""The two control networks that run beside every candidate, prepared on a device, and the timing of calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from nas.latency.machine.watch import THIS_MACHINE, Watch

Call = Callable[[], object]
"""One inference, from an image held on the device to labels. It returns when the labels exist."""

WARM_UP_CALLS = (5, 60)  # fewest and most pairs
WARM_UP_SECONDS = 0.2  # shortest: idle threads of other processes keep spinning this long after a training step
WARM_UP_STABLE = 0.05  # largest change of the median of five ratios
CANARY_CALLS = 9  # in a row; the first is not counted, since it finds the caches cold


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Reference and canary (see `nas.latency.protocol.reference`), prepared on the device of the candidates."""

    reference: Call
    canary: Call
    key: Mapping[str, str]
    """What their latency depends on: the key of their anchor (`nas.latency.machine.device_key`)."""
    threads: int = 1
    """CPU threads that a call uses."""
    device: str = "cpu"
    """`cpu` or `cuda:N`; the clocks and other users of a GPU are watched as well."""
    watch: Watch = THIS_MACHINE
    """The clock that calls are timed by, and the counters of other activity on the machine."""


def milliseconds(call: Call, watch: Watch) -> float:
    """Duration of one call in milliseconds."""
    start = watch.nanoseconds()
    call()
    return (watch.nanoseconds() - start) / 1e6


def canary_milliseconds(controls: Controls) -> float:
    """Median duration of the canary in milliseconds, called several times in a row."""
    return float(np.median([milliseconds(controls.canary, controls.watch) for _ in range(CANARY_CALLS)][1:]))


def warm_up(one: Call, other: Call, watch: Watch) -> None:
    """Call two networks in turns until the ratio of their durations has settled, or `WARM_UP_CALLS` are used up."""
    fewest, most = WARM_UP_CALLS
    ratios: list[float] = []
    end = watch.seconds() + WARM_UP_SECONDS
    while len(ratios) < most:
        ratios.append(milliseconds(one, watch) / milliseconds(other, watch))
        if len(ratios) >= max(fewest, 10) and watch.seconds() >= end:
            before, now = np.median(ratios[-10:-5]), np.median(ratios[-5:])
            if abs(now / before - 1) <= WARM_UP_STABLE:
                return
