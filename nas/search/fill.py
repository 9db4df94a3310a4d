"""The width is solved, not left to luck: one factor on every width, so that the measured latency fills the budget.

An estimate says where to look, a measurement whether that is it. Estimates may be far off: each measurement corrects
them for the widths around it, and the search for the factor stays between what was measured inside and outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from space import Architecture
from space.latency import Budget, Latency
from space.scale import scale_width

NARROWEST, WIDEST = 0.03, 16.0
FULL_ENOUGH = 0.95  # of the budget
SAFE = 0.985  # of the budget: repeated measurements differ by one to two per cent
MOST_MEASUREMENTS = 6
HALVINGS = 10  # of the range of factors, on a logarithmic scale, to solve for an estimate


@dataclass(frozen=True, kw_only=True)
class Filled:
    """An architecture at the width that fills the budget, or the narrowest one if none is inside it."""

    architecture: Architecture
    latency: Latency
    factor: float


def fill(
    architecture: Architecture,
    budget: Budget,
    measure: Callable[[Architecture], Latency],
    estimate: Callable[[Architecture], float],
) -> Filled:
    """Scale every width of `architecture` until its measured latency uses most of the budget without leaving it.

    `estimate` gives milliseconds without measuring. The result is outside the budget only when the narrowest width is.
    """
    inside: Filled | None = None
    outside: Filled | None = None
    seen: set[str] = set()
    wanted = budget.milliseconds * (FULL_ENOUGH + SAFE) / 2
    correction = 1.0
    for _ in range(MOST_MEASUREMENTS):
        low = inside.factor if inside else NARROWEST
        high = outside.factor if outside else WIDEST
        factor = _solve(architecture, estimate, wanted / correction, low, high)
        if scale_width(architecture, factor).key in seen:
            factor = math.sqrt(low * high)  # the estimate says that there is nothing in between
        candidate = scale_width(architecture, factor)
        if candidate.key in seen:
            break
        seen.add(candidate.key)
        filled = Filled(architecture=candidate, latency=measure(candidate), factor=factor)
        milliseconds = filled.latency.milliseconds(budget.statistic)
        correction = milliseconds / estimate(candidate)
        if milliseconds <= SAFE * budget.milliseconds:
            inside = filled
            if milliseconds >= FULL_ENOUGH * budget.milliseconds:
                break
        else:
            outside = filled
    if inside is None and outside is not None and outside.factor > NARROWEST:
        candidate = scale_width(architecture, NARROWEST)
        outside = Filled(architecture=candidate, latency=measure(candidate), factor=NARROWEST)
    result = inside or outside
    assert result is not None
    return result


def _solve(
    architecture: Architecture, estimate: Callable[[Architecture], float], milliseconds: float, low: float, high: float
) -> float:
    """The largest factor from `low` to `high` that is estimated to take that long; an end where none does."""
    if estimate(scale_width(architecture, high)) <= milliseconds:
        return high
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        if estimate(scale_width(architecture, middle)) <= milliseconds:
            low = middle
        else:
            high = middle
    return low
