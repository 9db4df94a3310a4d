"""Latency: what a network was measured to take, and how. Never a bare number.

A Latency holds the ratio to a frozen reference network as well as milliseconds. The ratio is what was observed; the
milliseconds are that ratio times what the reference took when the device was anchored (`nas.latency.protocol`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from space.errors import UserError

Statistic = Literal["p50", "p90", "p99"]
STATISTICS: tuple[str, ...] = get_args(Statistic)


@dataclass(frozen=True, kw_only=True)
class Latency:
    """What was measured, on what, how often, how surely and under which conditions.

    Raises: UserError when a number is not positive and finite, or the quantiles are out of order.
    """

    p50_milliseconds: float  # ratio * reference_milliseconds, as are the next four
    p90_milliseconds: float
    p99_milliseconds: float
    ci_low_milliseconds: float  # 95 % interval of the median
    ci_high_milliseconds: float
    samples: int  # pairs of (candidate, reference) calls behind every number here
    ratio: float  # median of the paired ratios candidate / reference
    ratio_low: float  # 95 % interval of that median
    ratio_high: float
    reference_milliseconds: float  # the anchor: what the frozen reference takes on this device
    raw_p50_milliseconds: float  # median of the candidate's own clock, as the machine happened to run
    target: str  # parses as a Target
    height: int
    width: int
    scope: str  # what is inside the timed call
    batch: int = 1
    set_aside: int = 0  # pairs not counted, taken while the machine was not as when it was anchored
    blocks: tuple[tuple[float, float], ...] = ()  # (candidate, reference): median milliseconds of each block of calls
    flagged: tuple[str, ...] = ()  # why not to trust it; empty for a quiet measurement
    environment: Mapping[str, str] = field(default_factory=dict)  # device, versions, threads

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            least_excluded = -1 if item.name == "set_aside" else 0
            if isinstance(value, (int, float)) and not (math.isfinite(value) and value > least_excluded):
                raise UserError(f"expected {item.name} of a latency to be positive, got {value}; measure again")
        if not self.p50_milliseconds <= self.p90_milliseconds <= self.p99_milliseconds:
            raise UserError(
                "expected p50 <= p90 <= p99 of a latency, got "
                f"{self.p50_milliseconds}, {self.p90_milliseconds}, {self.p99_milliseconds}; measure again"
            )
        object.__setattr__(self, "flagged", tuple(self.flagged))
        object.__setattr__(self, "blocks", tuple((float(one), float(other)) for one, other in self.blocks))
        object.__setattr__(self, "environment", dict(self.environment))

    def __hash__(self) -> int:
        return hash((self.target, self.height, self.width, self.samples, self.ratio, self.raw_p50_milliseconds))

    def milliseconds(self, statistic: Statistic = "p50") -> float:
        """The given statistic in milliseconds."""
        return {"p50": self.p50_milliseconds, "p90": self.p90_milliseconds, "p99": self.p99_milliseconds}[statistic]

    def __str__(self) -> str:
        half = (self.ci_high_milliseconds - self.ci_low_milliseconds) / 2
        noisy = f" (flagged: {'; '.join(self.flagged)})" if self.flagged else ""
        size = f"{self.height}x{self.width}"
        return f"{self.p50_milliseconds:.2f} ms +-{half:.2f} on {self.target} at {size}{noisy}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings, lists and dicts, as YAML and JSON hold them."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        blocks = [list(block) for block in self.blocks]
        return values | {"flagged": list(self.flagged), "blocks": blocks, "environment": dict(self.environment)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Latency:
        """The latency that `to_dict` wrote.

        Raises: UserError for keys that are unknown or missing, or numbers that are none.
        """
        known = {item.name: item.type for item in fields(cls)}
        values = {"blocks": (), **values}  # records of protocol 1 have none
        unknown = [key for key in values if key not in known]
        missing = [key for key in known if key not in values]
        if unknown or missing:
            raise UserError(f"not the record of a latency: unknown {unknown}, missing {missing}; measure again")
        wanted: dict[Any, Any] = {"int": int, "float": (int, float), "str": str}
        for key, kind in known.items():
            if kind in wanted and (isinstance(values[key], bool) or not isinstance(values[key], wanted[kind])):
                raise UserError(f"expected {key} of a latency to be {kind}, got {values[key]!r}; measure again")
        if not isinstance(values["flagged"], (list, tuple)) or not isinstance(values["environment"], Mapping):
            raise UserError("expected flagged to be a list and environment a mapping in a latency; measure again")
        return cls(**values)
