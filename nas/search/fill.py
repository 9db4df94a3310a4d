"""The width is solved, not left to luck, so that the measured latency fills the budget: one factor on every width, then
single stages.

Hardware has steps: 16 channels cost what 9 do, and 20 what 32 do. Where one factor ends below the budget, since the
next step of all layers together is above it, single stages are widened to their next step.

An estimate says where to look, a measurement whether that is it. Estimates may be far off: each measurement corrects
them for the widths around it, and the search for the factor stays between what was measured inside and outside.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from space import Architecture
from space.latency import Budget, Latency
from space.scale import scale_width, wider_stages

NARROWEST, WIDEST = 0.03, 16.0
FULL_ENOUGH = 0.95  # of the budget
SAFE = 0.985  # of the budget: repeated measurements differ by one to two per cent
MOST_MEASUREMENTS = 4  # to solve the factor
MOST_WIDENINGS = 3  # of single stages
HALVINGS = 10  # of the range of factors, on a logarithmic scale, to solve for an estimate


@dataclass(frozen=True, kw_only=True)
class Filled:
    """An architecture at the width that fills the budget, or the narrowest one if none is inside it."""

    architecture: Architecture
    latency: Latency
    factor: float
    widened: bool = False  # beyond the factor, in single stages


def fill(
    architecture: Architecture,
    budget: Budget,
    measure: Callable[[Architecture], Latency],
    estimate: Callable[[Architecture], float],
) -> Filled:
    """Widen or narrow `architecture` until its measured latency uses most of the budget without leaving it.

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
    return result if inside is None else _widen_stages(inside, budget, measure, estimate)


def _widen_stages(
    filled: Filled,
    budget: Budget,
    measure: Callable[[Architecture], Latency],
    estimate: Callable[[Architecture], float],
) -> Filled:
    """Single stages brought to their next step, each time the dearest one that is estimated to stay inside."""
    wanted = budget.milliseconds * (FULL_ENOUGH + SAFE) / 2
    for _ in range(MOST_WIDENINGS):
        milliseconds = filled.latency.milliseconds(budget.statistic)
        if milliseconds >= FULL_ENOUGH * budget.milliseconds:
            break
        correction = milliseconds / estimate(filled.architecture)
        wider = [(correction * estimate(each), each) for each in wider_stages(filled.architecture)]
        fitting = [each for each in wider if milliseconds < each[0] <= wanted]
        if not fitting:
            break
        candidate = max(fitting, key=lambda each: each[0])[1]
        latency = measure(candidate)
        if latency.milliseconds(budget.statistic) > SAFE * budget.milliseconds:
            break
        filled = Filled(architecture=candidate, latency=latency, factor=filled.factor, widened=True)
    return filled


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
