"""The width is solved, not left to luck: one factor on every width, so that the measured latency fills the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from space import Architecture
from space.latency import Budget, Latency
from space.scale import scale_width

NARROWEST, WIDEST = 0.03, 16.0
FULL_ENOUGH = 0.94  # of the budget
SAFE = 0.985  # of the budget: repeated measurements differ by one to two per cent
MOST_MEASUREMENTS = 6
LATENCY_EXPONENT = 1.5  # of the width factor, for a first guess: between linear (depthwise) and quadratic


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
    *,
    first_factor: float = 1.0,
) -> Filled:
    """Scale every width of `architecture` until its measured latency uses most of the budget without leaving it.

    The result is outside the budget only when the narrowest width is.
    """
    inside: Filled | None = None
    outside: Filled | None = None
    factor = min(max(first_factor, NARROWEST), WIDEST)
    seen: set[str] = set()
    for _ in range(MOST_MEASUREMENTS):
        candidate = scale_width(architecture, factor)
        if candidate.key in seen:
            break
        seen.add(candidate.key)
        filled = Filled(architecture=candidate, latency=measure(candidate), factor=factor)
        share = _share(filled, budget)
        if share <= SAFE:
            inside = filled
            if share >= FULL_ENOUGH:
                break
        else:
            outside = filled
        factor = _next_factor(inside, outside, budget)
    if inside is None and outside is not None and factor > NARROWEST:
        candidate = scale_width(architecture, NARROWEST)
        outside = Filled(architecture=candidate, latency=measure(candidate), factor=NARROWEST)
    result = inside or outside
    assert result is not None
    return result


def _share(filled: Filled, budget: Budget) -> float:
    return filled.latency.milliseconds(budget.statistic) / budget.milliseconds


def _next_factor(inside: Filled | None, outside: Filled | None, budget: Budget) -> float:
    """Where the latency should meet the middle of the wanted band, on a line in logarithms."""
    wanted = math.log((FULL_ENOUGH + SAFE) / 2)
    known = inside or outside
    assert known is not None
    if inside is None or outside is None:
        step = (wanted - math.log(_share(known, budget))) / LATENCY_EXPONENT
        return min(max(known.factor * math.exp(step), NARROWEST), WIDEST)
    low, high = math.log(_share(inside, budget)), math.log(_share(outside, budget))
    place = (wanted - low) / (high - low) if high > low else 0.5
    place = min(max(place, 0.1), 0.9)  # latency is stepped: do not stay at one end
    return math.exp(math.log(inside.factor) * (1 - place) + math.log(outside.factor) * place)
