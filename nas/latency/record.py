"""Latency: what a network was measured to take, and how. Never a bare number.

A Latency holds the ratio to a frozen reference network as well as milliseconds. The ratio is what was observed; the
milliseconds are that ratio times what the reference took when the device was anchored (`nas.latency.protocol`).

Wherever a Latency is kept or sent, it is the YAML of `space.strict`: in a trial, a certificate, a worker's reply.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from nas.latency.target import PRECISIONS, Target
from space.errors import UserError

Statistic = Literal["p50", "p90", "p99"]
STATISTICS: tuple[str, ...] = get_args(Statistic)
# `space.strict.LEFT_OUT_AT_DEFAULT`, without what reads YAML: this module is sent to hosts that have nothing of ours.
_LEFT_OUT_AT_DEFAULT = {"left_out_at_default": True}


@dataclass(frozen=True, kw_only=True)
class MeasuredTimes:
    """What a network takes in one precision, and how surely.

    Raises: UserError when a number is not positive and finite, or the quantiles are out of order.
    """

    p50_milliseconds: float
    """The median: the ratio to the reference times what that takes, as all milliseconds but the raw ones are."""
    p90_milliseconds: float
    p99_milliseconds: float
    ci_low_milliseconds: float
    """95 % interval of the median."""
    ci_high_milliseconds: float

    def __post_init__(self) -> None:
        self._require_positive(item.name for item in fields(MeasuredTimes))
        if not self.ci_low_milliseconds <= self.ci_high_milliseconds:
            raise UserError("expected intervals of a latency from their lower to their upper end; measure again")
        if not self.p50_milliseconds <= self.p90_milliseconds <= self.p99_milliseconds:
            raise UserError(
                "expected p50 <= p90 <= p99 of a latency, got "
                f"{self.p50_milliseconds}, {self.p90_milliseconds}, {self.p99_milliseconds}; measure again"
            )

    def _require_positive(self, names: Iterable[str]) -> None:
        for name in names:
            value = getattr(self, name)
            if isinstance(value, (int, float)) and not (math.isfinite(value) and value > 0):
                raise UserError(f"expected {name} of a latency to be positive, got {value}; measure again")

    def milliseconds(self, statistic: Statistic = "p50") -> float:
        """The given statistic in milliseconds."""
        return {"p50": self.p50_milliseconds, "p90": self.p90_milliseconds, "p99": self.p99_milliseconds}[statistic]


@dataclass(frozen=True, kw_only=True)
class OtherPrecision(MeasuredTimes):
    """What the same network took in a precision in which it does not count."""

    precision: str
    flagged: tuple[str, ...] = ()
    """Why not to trust it; empty for a quiet measurement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    @classmethod
    def of(cls, latency: Latency) -> OtherPrecision:
        """What is kept of a latency."""
        return cls(
            precision=Target.parse(latency.target).precision,
            **{item.name: getattr(latency, item.name) for item in fields(MeasuredTimes)},
            flagged=latency.flagged,
        )


@dataclass(frozen=True, kw_only=True)
class Latency(MeasuredTimes):
    """What was measured, on what, how often, how surely and under which conditions."""

    samples: int
    """Pairs of (candidate, reference) calls behind every number here."""
    ratio: float
    """Candidate over reference, of the median calls in undisturbed blocks, on the machine as it was anchored."""
    ratio_low: float
    """95 % interval of the ratio."""
    ratio_high: float
    reference_milliseconds: float
    """The anchor: what the frozen reference takes on this device."""
    raw_p50_milliseconds: float
    """Median of the candidate by the machine's clock, whatever state the machine was in."""
    target: str
    """Parses as a `Target`."""
    height: int
    width: int
    scope: str
    """What is inside the timed call."""
    batch: int = 1
    set_aside: int = 0
    """Pairs not counted, taken while the machine was not as it was when it was anchored."""
    blocks: tuple[tuple[float, float], ...] = ()
    """Median milliseconds (candidate, reference) of each block of calls. Records of protocol 1 have none."""
    flagged: tuple[str, ...] = ()
    """Why not to trust it; empty for a quiet measurement."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Device, versions, threads."""
    processes_milliseconds: tuple[float, ...] = field(default=(), metadata=_LEFT_OUT_AT_DEFAULT)
    """The median in each process, where several that were timed one after another count (`nas.latency.several`)."""
    corrected: float = field(default=1.0, metadata=_LEFT_OUT_AT_DEFAULT)
    """What ratios here were multiplied by, for small networks slow down more than the reference on a busier machine."""
    other_precisions: tuple[OtherPrecision, ...] = field(default=(), metadata=_LEFT_OUT_AT_DEFAULT)
    """Where the network was timed in several, what it took in those in which it does not count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive(item.name for item in fields(self) if item.name != "set_aside")
        if self.set_aside < 0:
            raise UserError(f"expected set_aside of a latency to be 0 or more, got {self.set_aside}; measure again")
        if not all(math.isfinite(each) and each > 0 for each in self.processes_milliseconds):
            raise UserError("expected processes_milliseconds of a latency to be positive; measure again")
        Target.parse(self.target)
        if not self.ratio_low <= self.ratio_high:
            raise UserError("expected intervals of a latency from their lower to their upper end; measure again")
        object.__setattr__(self, "flagged", tuple(self.flagged))
        object.__setattr__(self, "blocks", tuple((float(one), float(other)) for one, other in self.blocks))
        object.__setattr__(self, "processes_milliseconds", tuple(map(float, self.processes_milliseconds)))
        object.__setattr__(self, "environment", dict(self.environment))

    def __hash__(self) -> int:
        return hash((self.target, self.height, self.width, self.samples, self.ratio, self.raw_p50_milliseconds))

    def is_as_sure_as(self, within: float) -> bool:
        """Whether it was undisturbed, and half of its 95 % interval is at most this share of it."""
        half = (self.ci_high_milliseconds - self.ci_low_milliseconds) / 2
        return not self.flagged and half <= within * self.p50_milliseconds

    def interval(self, statistic: Statistic = "p50") -> tuple[float, float]:
        """Between which milliseconds the given statistic surely is: the 95 % interval of the median; of a high
        percentile, whose own is not recorded, as large a share of it.
        """
        middle = self.p50_milliseconds
        low, high = min(self.ci_low_milliseconds, middle), max(self.ci_high_milliseconds, middle)
        share = self.milliseconds(statistic) / middle
        return share * low, share * high

    def __str__(self) -> str:
        half = (self.ci_high_milliseconds - self.ci_low_milliseconds) / 2
        noisy = f" (flagged: {'; '.join(self.flagged)})" if self.flagged else ""
        size = f"{self.height}x{self.width}"
        return f"{self.p50_milliseconds:.2f} ms +-{half:.2f} on {self.target} at {size}{noisy}"
