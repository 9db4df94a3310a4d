"""The width is solved, not left to luck, so that the measured latency fills the budget: one factor on every width, then
single parts.

Hardware has steps: 16 channels cost what 9 do, and 20 what 32 do. Where one factor ends below the budget, since the
next step of all layers together is above it, single stages and decoders are widened by a step.

An estimate says where to look, a measurement whether that is it. Estimates may be far off: each measurement corrects
them for the widths around it, and the search for the factor stays between what was measured inside and outside. Quick
measurements, of few blocks, err upwards on a machine that is not quiet all the time; so what they end at is confirmed
by a measurement as sure as a certificate's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from space import Architecture
from space.latency import Budget, Latency
from space.scale import scale_width, wider_parts

NARROWEST, WIDEST = 0.03, 16.0
FULL_ENOUGH = 0.95  # of the budget
SAFE = 0.985  # of the budget: repeated measurements differ by one to two per cent
MOST_MEASUREMENTS = 4  # to solve the factor
MOST_CONFIRMATIONS = 4  # of the factor, and of single parts widened
MOST_STEPS = 12  # of single parts, from one measurement to the next
HALVINGS = 10  # of the range of factors, on a logarithmic scale, to solve for an estimate


Measure = Callable[[Architecture], Latency]


@dataclass(frozen=True, kw_only=True)
class Filled:
    """An architecture at the width that fills the budget, or the narrowest one if none is inside it."""

    architecture: Architecture
    latency: Latency
    factor: float
    widened: bool = False  # beyond the factor, in single parts


def fill(
    architecture: Architecture,
    budget: Budget,
    measure: Measure,
    confirm: Measure,
    estimate: Callable[[Architecture], float],
) -> Filled:
    """Widen or narrow `architecture` until its measured latency uses most of the budget without leaving it.

    `measure` is quick, `confirm` is sure, `estimate` gives milliseconds without measuring. The result was confirmed. It
    is outside the budget when the narrowest width is, or when MOST_CONFIRMATIONS in a row are.
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
    factor = inside.factor if inside else NARROWEST
    left = MOST_CONFIRMATIONS
    while True:
        left -= 1
        candidate = scale_width(architecture, factor)
        filled = Filled(architecture=candidate, latency=confirm(candidate), factor=factor)
        milliseconds = filled.latency.milliseconds(budget.statistic)
        if milliseconds <= SAFE * budget.milliseconds or factor <= NARROWEST or not left:
            break
        # The quick measurement erred downwards.
        factor = _solve(architecture, estimate, wanted * estimate(candidate) / milliseconds, NARROWEST, factor)
        if scale_width(architecture, factor) == candidate:
            factor = NARROWEST
    return _widened_into(filled, budget, confirm, estimate, left)


def _widened_into(
    filled: Filled, budget: Budget, confirm: Measure, estimate: Callable[[Architecture], float], measurements: int
) -> Filled:
    """Single parts widened by what is left of the budget, with at most so many measurements."""
    seen = {filled.architecture.key}
    wanted = budget.milliseconds * (FULL_ENOUGH + SAFE) / 2
    for _ in range(measurements):
        milliseconds = filled.latency.milliseconds(budget.statistic)
        if milliseconds >= FULL_ENOUGH * budget.milliseconds:
            break
        correction = milliseconds / estimate(filled.architecture)
        candidate = _widened(filled.architecture, estimate, wanted / correction)
        if candidate.key in seen:
            break
        seen.add(candidate.key)
        latency = confirm(candidate)
        if latency.milliseconds(budget.statistic) > SAFE * budget.milliseconds:
            wanted *= wanted / latency.milliseconds(budget.statistic)
        else:
            filled = replace(filled, architecture=candidate, latency=latency, widened=True)
    return filled


def _widened(
    architecture: Architecture, estimate: Callable[[Architecture], float], milliseconds: float
) -> Architecture:
    """Single parts brought to a next step, each time the dearest that is estimated to stay within `milliseconds`."""
    for _ in range(MOST_STEPS):
        now = estimate(architecture)
        wider = [(estimate(each), each) for each in wider_parts(architecture)]
        fitting = [each for each in wider if now < each[0] <= milliseconds]
        if not fitting:
            break
        architecture = max(fitting, key=lambda each: each[0])[1]
    return architecture


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
