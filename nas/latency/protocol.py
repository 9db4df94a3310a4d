"""How a latency is taken: candidate and reference alternate call by call, and their paired ratio is what counts.

Clocks drift: the same network on the same machine takes 10-30 % more in one minute than in the next (frequency, heat,
neighbours behind a hypervisor), and no counter tells. What slows one call slows the next one too, so the ratio of two
neighbouring calls repeats within 1-3 % where each of them does not. Hence

1. an own process, pinned to as many cores as the target has threads; nothing of ours trains meanwhile (`lane`),
2. warm-up until stable,
3. candidate, reference, candidate, reference, ... at least 40 pairs, more (up to 120) until the 95 % interval of the
   median ratio is within 1.5 % of it. Every call thus finds the caches as another network left them,
4. what else the machine did is watched (`load`), as are the reference's own steadiness and its distance from the
   anchor. A disturbed measurement is repeated once; if the second is disturbed as well the better one is reported with
   its reasons in `flagged`. Nothing is averaged away.

**What a millisecond means.** A latency in milliseconds is `median(candidate_i / reference_i) * anchor`: the anchor is
the latency of the reference network on this device, measured once as the median of the medians of nine blocks, and kept
(`nas.latency.anchor`). So milliseconds are those of the device *as it was when it was anchored*; two numbers with the
same anchor compare to within the intervals of their ratios, whenever they were taken. When the machine is now
persistently slower or faster, the candidate really takes `raw_p50_milliseconds`, and beyond 30 % that is a reason to
flag: then the device has changed (power plan, cooling, other tenants) and wants a new anchor. The ratio and the anchor
are both in the record, so that results survive a new anchor.

p90 and p99 are quantiles of the ratios times the anchor: the candidate's tail with drift removed and the reference's
own jitter included, which errs to the careful side. With 40 pairs the p99 is little more than the largest value seen.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.latency import load
from space.latency import Latency
from space.target import Target

Run = Callable[[], object]

PAIRS = 40
MOST_PAIRS = 120
MORE_PAIRS = 20  # added at a time while the interval is too wide
MORE_SECONDS = 15.0  # nothing is added after that long: the machine is not going to be quiet
HALF_WIDTH = 0.015  # of the median: half of its 95 % interval
RESAMPLES = 2000

WARM_UP_CALLS = (5, 60)  # least and most pairs
WARM_UP_SECONDS = 0.2  # least: other processes' idle threads spin on that long after a training step
WARM_UP_STABLE = 0.05  # change of the median of five ratios

UNSTEADY_REFERENCE = 0.20  # interquartile range / median of the reference's own times
FAR_FROM_ANCHOR = 1.30

SCOPE = "network, upsampling to the input size, arg-max to labels; no copy of the image in or the labels out"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Times of alternating calls in milliseconds, and what disturbed them."""

    candidate: NDArray[np.float64]
    reference: NDArray[np.float64]
    disturbances: tuple[str, ...]

    @property
    def ratios(self) -> NDArray[np.float64]:
        return self.candidate / self.reference

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of the median ratio, as a share of it."""
        low, high = interval(self.ratios)
        return float((high - low) / 2 / np.median(self.ratios))


def milliseconds(run: Run) -> float:
    """Duration of one call."""
    start = time.perf_counter_ns()
    run()
    return (time.perf_counter_ns() - start) / 1e6


def warm_up(candidate: Run, reference: Run) -> None:
    """Alternate until the ratio has settled: caches, allocators, clocks and thread pools."""
    fewest, most = WARM_UP_CALLS
    ratios: list[float] = []
    end = time.perf_counter() + WARM_UP_SECONDS
    while len(ratios) < most:
        ratios.append(milliseconds(candidate) / milliseconds(reference))
        if len(ratios) >= max(fewest, 10) and time.perf_counter() >= end:
            before, now = np.median(ratios[-10:-5]), np.median(ratios[-5:])
            if abs(now / before - 1) <= WARM_UP_STABLE:
                return


def interval(ratios: NDArray[np.float64]) -> tuple[float, float]:
    """95 % bootstrap interval of the median; the same numbers give the same interval."""
    random = np.random.default_rng(0)
    medians = np.median(random.choice(ratios, size=(RESAMPLES, len(ratios))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return float(low), float(high)


def take_pairs(candidate: Run, reference: Run, threads: int, pairs: int = PAIRS) -> Pairs:
    """Alternating timed calls until the interval is narrow or the limit is reached; watched from outside."""
    times: list[tuple[float, float]] = []
    most = max(MOST_PAIRS, pairs)
    end = time.perf_counter() + MORE_SECONDS
    before = load.snapshot()
    collecting = gc.isenabled()
    gc.disable()
    try:
        while True:
            wanted = pairs if not times else min(most, len(times) + MORE_PAIRS)
            while len(times) < wanted:
                times.append((milliseconds(candidate), milliseconds(reference)))
            table = np.asarray(times)
            taken = Pairs(candidate=table[:, 0], reference=table[:, 1], disturbances=())
            if len(times) >= most or taken.half_width <= HALF_WIDTH or time.perf_counter() > end:
                break
    finally:
        if collecting:
            gc.enable()
    seen = load.disturbances(before, load.snapshot(), threads)
    return Pairs(candidate=table[:, 0], reference=table[:, 1], disturbances=seen + _unsteadiness(taken))


def _unsteadiness(pairs: Pairs) -> tuple[str, ...]:
    reasons = []
    low, middle, high = np.quantile(pairs.reference, (0.25, 0.5, 0.75))
    if (high - low) / middle > UNSTEADY_REFERENCE:
        reasons.append(f"the reference varied by {(high - low) / middle:.0%}")
    if pairs.half_width > HALF_WIDTH:
        reasons.append(f"the median is known to {pairs.half_width:.1%} only after {len(pairs.ratios)} pairs")
    return tuple(reasons)


def measure(candidate: Run, reference: Run, threads: int, pairs: int = PAIRS) -> Pairs:
    """Warm up and take pairs; once more when they were disturbed, and then the better of the two."""
    warm_up(candidate, reference)
    first = take_pairs(candidate, reference, threads, pairs)
    if not first.disturbances:
        return first
    second = take_pairs(candidate, reference, threads, pairs)
    return min(first, second, key=lambda taken: (len(taken.disturbances), taken.half_width))


def summarise(
    pairs: Pairs,
    *,
    anchor_milliseconds: float,
    anchor_flagged: tuple[str, ...],
    target: Target,
    size: tuple[int, int],
    environment: Mapping[str, str],
) -> Latency:
    """The record of a measurement: ratios, and milliseconds through the anchor."""
    ratio, p90, p99 = (float(value) for value in np.quantile(pairs.ratios, (0.5, 0.9, 0.99)))
    low, high = interval(pairs.ratios)
    flagged = list(pairs.disturbances)
    if anchor_flagged:
        flagged.append(f"the reference was anchored on a disturbed machine ({'; '.join(anchor_flagged)})")
    drift = float(np.median(pairs.reference)) / anchor_milliseconds
    if not 1 / FAR_FROM_ANCHOR <= drift <= FAR_FROM_ANCHOR:
        flagged.append(f"the machine ran the reference at {drift:.2f} of its anchored latency")
    return Latency(
        p50_milliseconds=ratio * anchor_milliseconds,
        p90_milliseconds=p90 * anchor_milliseconds,
        p99_milliseconds=p99 * anchor_milliseconds,
        ci_low_milliseconds=low * anchor_milliseconds,
        ci_high_milliseconds=high * anchor_milliseconds,
        samples=len(pairs.ratios),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        reference_milliseconds=anchor_milliseconds,
        raw_p50_milliseconds=float(np.median(pairs.candidate)),
        flagged=tuple(flagged),
        environment=environment,
        target=str(target),
        height=size[0],
        width=size[1],
        scope=SCOPE,
    )
