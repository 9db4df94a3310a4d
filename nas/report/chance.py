"""Statistics of chance: the mean over several seeds with its interval, and the expected best of random draws."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

# Student's t at 97.5 %, by degrees of freedom from 1. Beyond 20 the last is used, which is slightly too wide.
_T = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean with its 95 % interval."""

    mean: float
    half: float | None
    """Half of the interval, by Student's t; None for a single value, which tells nothing about the spread."""
    count: int


def mean_of(values: Sequence[float]) -> Mean | None:
    """The mean of independent values; None where there are none."""
    if not values:
        return None
    count = len(values)
    half = None
    if count > 1:
        half = _T[min(count - 1, len(_T)) - 1] * statistics.stdev(values) / math.sqrt(count)
    return Mean(mean=statistics.fmean(values), half=half, count=count)


def expected_best(values: Sequence[float], count: int) -> float:
    """The exact expected maximum of `count` of the values, drawn at random without replacement."""
    assert values, "there must be a value to draw"
    ranked = sorted(values)
    if count >= len(ranked):
        return ranked[-1]
    # The best of k is the i-th of n in C(i - 1, k - 1) of C(n, k) draws.
    ways = math.comb(len(ranked), count)
    return math.fsum(math.comb(place, count - 1) / ways * value for place, value in enumerate(ranked))
