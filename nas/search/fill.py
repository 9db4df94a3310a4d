"""The width is solved, not left to luck, so that the measured latency fills the budget: one factor on every width, then
single parts.

Hardware has steps: 16 channels cost what 9 do, and 20 what 32 do. Where one factor ends below the budget, since the
next step of all layers together is above it, single stages and decoders are widened by a step.

An estimate says where to look, a measurement whether that is it. Estimates may be far off: each measurement corrects
them for the widths around it, and the search for the factor stays between what was measured inside and outside. Quick
measurements, of few blocks, err by a few per cent; so what they end at is confirmed by measurements as sure as a
certificate's. These go by rounds: widenings that should fill what is left, and some that are estimated to fill less or
more than that, take turns; the one that fills the budget best is where the next round begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from space import Architecture
from space.latency import Budget, Latency
from space.scale import scale_width, wider_parts

NARROWEST, WIDEST = 0.03, 16.0
NEARLY_FULL = 0.93  # of the budget: enough for a factor; parts are widened after it
FULL_ENOUGH = 0.965
SAFE = 0.985  # of the budget: repeated measurements differ by one to two per cent
MOST_MEASUREMENTS = 4  # to solve the factor
MOST_ROUNDS = 3  # of confirmations
REACHES = (0.6, 1.0, 1.5, 2.2)  # shares of what is left of the budget that a round's widenings should add
MOST_STEPS = 12  # of single parts, in one widening
HALVINGS = 10  # of the range of factors, on a logarithmic scale, to solve for an estimate

Estimate = Callable[[Architecture], float]  # milliseconds, without measuring
Measure = Callable[[Architecture], Latency]
Confirm = Callable[[Sequence[Architecture]], list[Latency]]  # they take turns


@dataclass(frozen=True, kw_only=True)
class Filled:
    """An architecture at the width that fills the budget, or the narrowest one if none is inside it."""

    architecture: Architecture
    latency: Latency
    factor: float
    widened: bool = False  # beyond the factor, in single parts


def fill(architecture: Architecture, budget: Budget, measure: Measure, confirm: Confirm, estimate: Estimate) -> Filled:
    """Widen or narrow `architecture` until its measured latency uses most of the budget without leaving it.

    `measure` is quick, `confirm` is sure. The result was confirmed. It is outside the budget when the narrowest width
    is, or when all widths of MOST_ROUNDS are.
    """

    def milliseconds(filled: Filled) -> float:
        return filled.latency.milliseconds(budget.statistic)

    wanted = budget.milliseconds * (FULL_ENOUGH + SAFE) / 2
    factor, known, took = _solved(architecture, budget, wanted, measure, estimate)
    correction = took / estimate(known)
    best: Filled | None = None
    seen: set[str] = set()
    reach = 1.0
    for _ in range(MOST_ROUNDS):
        plain = scale_width(architecture, factor)
        start = best.architecture if best else plain
        now = estimate(start)
        left = max(wanted / correction - now, 0.0)
        widenings = [_widened(start, estimate, now + reach * share * left) for share in REACHES]
        asked = {each.key: each for each in (start, *widenings) if each.key not in seen}
        if not asked:
            break
        seen |= set(asked)
        found = [
            Filled(architecture=each, latency=latency, factor=factor, widened=each != plain)
            for each, latency in zip(asked.values(), confirm(list(asked.values())), strict=True)
        ]
        inside = [each for each in found if milliseconds(each) <= SAFE * budget.milliseconds]
        if best is None and not inside:  # the quick measurement erred downwards
            lowest = min(found, key=milliseconds)
            if factor <= NARROWEST:
                return lowest
            correction = milliseconds(lowest) / estimate(lowest.architecture)
            factor = _solve(architecture, estimate, wanted / correction, NARROWEST, factor)
            if scale_width(architecture, factor).key in seen:
                factor = NARROWEST
            continue
        if not inside:
            reach /= 2
        best = max([*inside, *filter(None, [best])], key=milliseconds)
        correction = milliseconds(best) / estimate(best.architecture)
        if milliseconds(best) >= FULL_ENOUGH * budget.milliseconds:
            break
    return best or lowest


def _solved(
    architecture: Architecture, budget: Budget, wanted: float, measure: Measure, estimate: Estimate
) -> tuple[float, Architecture, float]:
    """The factor that a few quick measurements lead to; the one nearest to it, and its milliseconds."""
    low, high = NARROWEST, WIDEST
    inside: tuple[float, Architecture, float] | None = None
    correction = 1.0
    seen: set[str] = set()
    for _ in range(MOST_MEASUREMENTS):
        factor = _solve(architecture, estimate, wanted / correction, low, high)
        if scale_width(architecture, factor).key in seen:
            factor = math.sqrt(low * high)  # the estimate says that there is nothing in between
        candidate = scale_width(architecture, factor)
        if candidate.key in seen:
            break
        seen.add(candidate.key)
        milliseconds = measure(candidate).milliseconds(budget.statistic)
        correction = milliseconds / estimate(candidate)
        last = factor, candidate, milliseconds
        if milliseconds > SAFE * budget.milliseconds:
            high = factor
            continue
        low, inside = factor, last
        if milliseconds >= NEARLY_FULL * budget.milliseconds:
            break
    return inside or (NARROWEST, *last[1:])


def _widened(architecture: Architecture, estimate: Estimate, milliseconds: float) -> Architecture:
    """Single parts brought to a next step, each time the dearest that is estimated to stay within `milliseconds`."""
    for _ in range(MOST_STEPS):
        now = estimate(architecture)
        wider = [(estimate(each), each) for each in wider_parts(architecture)]
        fitting = [each for each in wider if now < each[0] <= milliseconds]
        if not fitting:
            break
        architecture = max(fitting, key=lambda each: each[0])[1]
    return architecture


def _solve(architecture: Architecture, estimate: Estimate, milliseconds: float, low: float, high: float) -> float:
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
