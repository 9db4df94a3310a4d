"""Pairs of alternating calls of a candidate and the reference, and the latency record computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nas.latency.protocol import SCOPE
from nas.latency.protocol.anchor import Anchor
from nas.latency.protocol.quiet import Times, interval, quiet_blocks, quiet_median, quiet_ratio
from nas.latency.protocol.slowing import correction
from nas.latency.record import Latency
from nas.latency.target import Target


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """All pairs of one candidate that count, and the reasons to distrust them."""

    candidate: Times
    """Milliseconds of the candidate (blocks, pairs of a block)."""
    reference: Times
    """Milliseconds of the reference (blocks, pairs of a block)."""
    disturbances: tuple[str, ...]
    """What disturbed the machine meanwhile."""
    doubts: tuple[str, ...] = ()
    """What the pairs leave uncertain although no more blocks are taken."""
    set_aside: int = 0
    """Number of pairs that were taken but do not count."""
    away: bool = False
    """Whether the machine was away from its anchored state and did not return."""

    @property
    def flagged(self) -> tuple[str, ...]:
        """All reasons to distrust the pairs."""
        return self.disturbances + self.doubts

    @property
    def repeatable(self) -> bool:
        """Whether another attempt may find the machine undisturbed."""
        return bool(self.disturbances) and not self.away

    @property
    def count(self) -> int:
        """Number of pairs."""
        return self.candidate.size

    @property
    def ratio(self) -> float:
        """Ratio of the quiet medians, candidate over reference."""
        return quiet_ratio(self.candidate, self.reference)

    @property
    def half_width(self) -> float:
        """Half of the ratio's 95 % interval, as a share of the ratio."""
        low, high = interval(self.candidate, self.reference)
        return (high - low) / 2 / self.ratio

    @property
    def quiet_blocks(self) -> int:
        """Number of undisturbed blocks."""
        return int(quiet_blocks(self.reference).sum())


def summarise(
    pairs: Pairs, anchor: Anchor, *, target: Target, size: tuple[int, int], environment: Mapping[str, str]
) -> Latency:
    """The record of a measurement at input `size` (H, W): ratios, and the milliseconds that the anchor gives them."""
    corrected = 1.0
    if target.device == "cpu" and environment.get("threads") == "1":  # the correction was not studied for other targets
        corrected = correction(pairs.ratio, quiet_median(pairs.reference), anchor.milliseconds)
    ratio, pair_ratios = corrected * pairs.ratio, corrected * pairs.candidate / pairs.reference
    p90, p99 = (max(ratio, float(value)) for value in np.quantile(pair_ratios, (0.9, 0.99)))
    low, high = (corrected * each for each in interval(pairs.candidate, pairs.reference))
    flagged = list(pairs.flagged)
    if anchor.flagged:
        flagged.append(f"the reference was anchored on a disturbed machine ({'; '.join(anchor.flagged)})")
    return Latency(
        p50_milliseconds=ratio * anchor.milliseconds,
        p90_milliseconds=p90 * anchor.milliseconds,
        p99_milliseconds=p99 * anchor.milliseconds,
        ci_low_milliseconds=low * anchor.milliseconds,
        ci_high_milliseconds=high * anchor.milliseconds,
        samples=pairs.count,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        reference_milliseconds=anchor.milliseconds,
        raw_p50_milliseconds=float(np.median(pairs.candidate)),
        corrected=corrected,
        flagged=tuple(flagged),
        set_aside=pairs.set_aside,
        blocks=tuple(
            (round(float(one), 4), round(float(other), 4))
            for one, other in zip(np.median(pairs.candidate, 1), np.median(pairs.reference, 1), strict=True)
        ),
        environment=environment,
        target=str(target),
        height=size[0],
        width=size[1],
        scope=SCOPE,
    )
