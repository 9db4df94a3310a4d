"""Latency: the measured latency of a network and how it was measured. Never a bare number.

A Latency holds milliseconds as well as the ratio to a frozen reference network. The ratio is what was observed; the
milliseconds are that ratio times the latency of the reference when the device was anchored (`nas.latency.protocol`).

Wherever a Latency is stored or sent (a trial, a certificate, a worker's reply), it is written as YAML by
`space.strict`.
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
# As `space.strict.LEFT_OUT_AT_DEFAULT`, which needs a YAML library: this module is sent to hosts that have none.
_LEFT_OUT_AT_DEFAULT = {"left_out_at_default": True}


def _require_ordered(low: float, high: float) -> None:
    if not low <= high:
        raise UserError(f"expected the interval of a latency as low <= high, got {low}, {high}; measure again")


@dataclass(frozen=True, kw_only=True)
class MeasuredTimes:
    """The latency of a network in one precision, with its uncertainty.

    Raises: UserError when a number is not positive and finite, or the quantiles are out of order.
    """

    p50_milliseconds: float
    """Median. Like all milliseconds but the raw ones, a ratio to the reference times the reference's anchor."""
    p90_milliseconds: float
    p99_milliseconds: float
    ci_low_milliseconds: float
    """Lower end of the median's 95 % interval."""
    ci_high_milliseconds: float
    """Upper end of the median's 95 % interval."""

    def __post_init__(self) -> None:
        self._require_positive(item.name for item in fields(MeasuredTimes))
        _require_ordered(self.ci_low_milliseconds, self.ci_high_milliseconds)
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
    """Latency of the same network in a precision other than the one that counts."""

    precision: str
    flagged: tuple[str, ...] = ()
    """Reasons to distrust it; empty for a quiet measurement."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.precision not in PRECISIONS:
            raise UserError(f"precision: expected one of {', '.join(PRECISIONS)}, got {self.precision!r}")

    @classmethod
    def of(cls, latency: Latency) -> OtherPrecision:
        """The part of `latency` that is kept."""
        return cls(
            precision=Target.parse(latency.target).precision,
            **{item.name: getattr(latency, item.name) for item in fields(MeasuredTimes)},
            flagged=latency.flagged,
        )


@dataclass(frozen=True, kw_only=True)
class Latency(MeasuredTimes):
    """What was measured, where, how often, how precisely and under which conditions."""

    samples: int
    """Number of pairs of calls (candidate, reference) that all numbers here are computed from."""
    ratio: float
    """Candidate over reference: ratio of their median calls in undisturbed blocks, in the machine's anchored state."""
    ratio_low: float
    """Lower end of the ratio's 95 % interval."""
    ratio_high: float
    """Upper end of the ratio's 95 % interval."""
    reference_milliseconds: float
    """The anchor: usual latency of the frozen reference on this device."""
    raw_p50_milliseconds: float
    """Median of the candidate's calls by the clock, whatever state the machine was in."""
    target: str
    """The target, as text that `Target.parse` reads."""
    height: int
    width: int
    scope: str
    """What the timed call includes."""
    batch: int = 1
    set_aside: int = 0
    """Number of pairs that do not count, taken while the machine was away from its anchored state."""
    blocks: tuple[tuple[float, float], ...] = ()
    """Median milliseconds (candidate, reference) of each block of calls; empty in records of protocol 1."""
    flagged: tuple[str, ...] = ()
    """Reasons to distrust it; empty for a quiet measurement."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Device, versions and threads."""
    processes_milliseconds: tuple[float, ...] = field(default=(), metadata=_LEFT_OUT_AT_DEFAULT)
    """Median of each process that counts, if several were timed one after another (`nas.latency.several`)."""
    corrected: float = field(default=1.0, metadata=_LEFT_OUT_AT_DEFAULT)
    """Factor already applied to the ratios, since a busy machine slows small networks more than the reference."""
    other_precisions: tuple[OtherPrecision, ...] = field(default=(), metadata=_LEFT_OUT_AT_DEFAULT)
    """Latencies in the other precisions, if the network was timed in several."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require_positive(item.name for item in fields(self) if item.name != "set_aside")
        if self.set_aside < 0:
            raise UserError(f"expected set_aside of a latency to be 0 or more, got {self.set_aside}; measure again")
        if not all(math.isfinite(median) and median > 0 for median in self.processes_milliseconds):
            raise UserError("expected processes_milliseconds of a latency to be positive; measure again")
        Target.parse(self.target)
        _require_ordered(self.ratio_low, self.ratio_high)
        object.__setattr__(self, "flagged", tuple(self.flagged))
        object.__setattr__(self, "blocks", tuple((float(network), float(beside)) for network, beside in self.blocks))
        object.__setattr__(self, "processes_milliseconds", tuple(map(float, self.processes_milliseconds)))
        object.__setattr__(self, "environment", dict(self.environment))

    def __hash__(self) -> int:
        return hash((self.target, self.height, self.width, self.samples, self.ratio, self.raw_p50_milliseconds))

    def is_as_sure_as(self, within: float) -> bool:
        """Whether the latency is not flagged and half of its 95 % interval is at most the share `within` of it."""
        half = (self.ci_high_milliseconds - self.ci_low_milliseconds) / 2
        return not self.flagged and half <= within * self.p50_milliseconds

    def interval(self, statistic: Statistic = "p50") -> tuple[float, float]:
        """The 95 % interval of the given statistic in milliseconds. For a high percentile, whose own interval is not
        recorded, it is as wide as the median's, relative to the value.
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
