"""The width is solved, not left to luck, so that the measured latency fills the budget: one factor on every width, then
single parts.

Hardware has steps: 16 channels cost what 9 do, and 20 what 32 do. Where one factor ends below the budget, since the
next step of all layers together is above it, single stages and decoders are widened by a step.

An estimate says where to look, a measurement whether that is it. Estimates may be far off: measurements correct them
for the widths around and between, and the search for the factor stays between what was measured inside and outside, and
near the last one: an estimate that knows little of a network's kind may say that sixteen times its width fits. Then go
rounds of widenings, some that should fill what is left of the budget and some that are estimated to fill less or
more than that; they take turns, so that they compare. These measurements are quick, of few blocks, and err by a few per
cent, all of a round alike; so what they end at is confirmed by one as sure as a certificate's, and if that says
otherwise, what it says of the others decides which is next.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from space import Architecture
from space.latency import Budget, Latency
from space.scale import scale_width, wider_parts

NARROWEST, WIDEST = 0.03, 16.0
NEARLY_FULL = 0.93  # of the budget: enough for a factor; parts are widened after it
FULL_ENOUGH = 0.96
SAFE = 0.985  # of the budget: repeated measurements differ by one to two per cent
WANTED = (FULL_ENOUGH + SAFE) / 2
MOST_MEASUREMENTS = 4  # to solve the factor
MOST_ROUNDS = 2  # of widenings
MOST_CONFIRMATIONS = 3
REACHES = (0.6, 1.0, 1.5, 2.2)  # shares of what is left of the budget that a round's widenings should add
MOST_STEPS = 12  # of single parts, in one widening
HALVINGS = 10  # of the range of factors, on a logarithmic scale, to solve for an estimate
STEEPEST = 4.0  # a measured factor tells about others up to this power of what it missed the budget by,
NEAR = 1.5  # and about those within this factor

Estimate = Callable[[Architecture], float]  # milliseconds, without measuring
Measure = Callable[[Sequence[Architecture]], list[Latency]]  # they take turns
Confirm = Callable[[Architecture], Latency]


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
    is, or when all that were confirmed are.
    """
    tries = _Tries(architecture, budget, measure, estimate)
    tries.solve_factor()
    for _ in range(MOST_ROUNDS):
        tries.widen(correction=1.0)
    confirmed: list[Filled] = []
    best: Filled | None = None
    correction = 1.0  # of quick measurements
    while len(confirmed) < MOST_CONFIRMATIONS:
        quick = tries.next(correction, above=tries.use(best) if best else 0.0)
        if quick is None:
            break
        sure = replace(quick, latency=confirm(quick.architecture))
        confirmed.append(sure)
        correction = tries.use(sure) / tries.use(quick)
        if tries.use(sure) <= SAFE:
            best = max(filter(None, (best, sure)), key=tries.use)
            if tries.use(best) >= FULL_ENOUGH or sure.latency.flagged:  # a disturbed machine tells no finer
                break
    return best or min(confirmed, key=tries.use)


class _Tries:
    """What was measured quickly on the way to an architecture's width, and what to measure next."""

    def __init__(self, architecture: Architecture, budget: Budget, measure: Measure, estimate: Estimate) -> None:
        self._waiting: list[Filled] = []  # not confirmed yet
        self._tried: list[Filled] = []
        self._architecture = architecture
        self._budget = budget
        self._measure = measure
        self._estimate = estimate

    def use(self, filled: Filled) -> float:
        """The share of the budget."""
        return filled.latency.milliseconds(self._budget.statistic) / self._budget.milliseconds

    def solve_factor(self) -> None:
        """Try factors until one nearly fills the budget, or nothing is left between what is inside and outside."""
        low, high = NARROWEST, WIDEST
        lowest, highest = low, high  # to try next
        for _ in range(MOST_MEASUREMENTS):
            factor = self._solve(lowest, highest)
            tried = self._by_factor(factor)
            if tried is None:  # the estimate says that there is nothing in between
                factor = math.sqrt(lowest * highest)
                tried = self._by_factor(factor)
            if tried is None:
                break
            if self.use(tried) > SAFE:
                high = factor
            else:
                low = factor
                if self.use(tried) >= NEARLY_FULL:
                    break
            missed = WANTED / self.use(tried)
            reach = max(NEAR, missed**STEEPEST, missed**-STEEPEST)
            lowest, highest = max(low, factor / reach), min(high, factor * reach)

    def widen(self, correction: float) -> None:
        """Try to fill what the best one inside leaves with single parts: as estimated, and with less and with more.

        Measured latencies are to be multiplied by `correction`.
        """
        inside = [each for each in self._tried if correction * self.use(each) <= SAFE]
        if not inside:
            return
        best = max(inside, key=self.use)
        if correction * self.use(best) >= FULL_ENOUGH:
            return
        now = self._estimate(best.architecture)
        left = self._wanted(correction * self._correction(best)) - now
        self._try([_widened(best.architecture, self._estimate, now + share * left) for share in REACHES], best.factor)

    def next(self, correction: float, *, above: float) -> Filled | None:
        """What to confirm: the one that fills most of the budget without leaving it, if it fills more than `above`.

        Where there is none, wider or narrower ones are tried; the narrowest of all is given although it is over.
        Measured latencies are to be multiplied by `correction`.
        """

        def likely() -> list[Filled]:
            return [each for each in self._waiting if above < correction * self.use(each) <= SAFE]

        found = likely()
        if not found:
            if above:
                self.widen(correction)
            else:
                self._narrow(correction)
            found = likely()
        lowest = min(self._tried, key=self.use)
        if not found and not above and lowest in self._waiting:
            found = [lowest]
        if not found:
            return None
        chosen = max(found, key=self.use)
        self._waiting.remove(chosen)
        return chosen

    def _narrow(self, correction: float) -> None:
        lowest = min(self._tried, key=self.use)
        if self._by_factor(self._solve(NARROWEST, lowest.factor, correction)) is None:
            self._by_factor(NARROWEST)

    def _by_factor(self, factor: float) -> Filled | None:
        return next(iter(self._try([scale_width(self._architecture, factor)], factor)), None)

    def _try(self, architectures: Sequence[Architecture], factor: float) -> list[Filled]:
        """Measure those that were not measured before."""
        plain = scale_width(self._architecture, factor)
        seen = {each.architecture.key for each in self._tried}
        new = {each.key: each for each in architectures if each.key not in seen}
        latencies = self._measure(list(new.values())) if new else []
        tried = [
            Filled(architecture=each, latency=latency, factor=factor, widened=each != plain)
            for each, latency in zip(new.values(), latencies, strict=True)
        ]
        self._tried += tried
        self._waiting += tried
        return tried

    def _correction(self, tried: Filled) -> float:
        """How many times as long as estimated it takes."""
        return self.use(tried) * self._budget.milliseconds / self._estimate(tried.architecture)

    def _wanted(self, correction: float) -> float:
        """The estimate to look for."""
        return WANTED * self._budget.milliseconds / correction

    def _solve(self, low: float, high: float, correction: float = 1.0) -> float:
        """The largest factor from `low` to `high` that is estimated to fit; an end where none does.

        Estimates are corrected by what was measured at the factors around; measured latencies by `correction`.
        """
        plain = sorted((math.log(each.factor), self._correction(each)) for each in self._tried if not each.widened)
        factors, corrections = zip(*plain, strict=True) if plain else ((0.0,), (1.0,))

        def fits(factor: float) -> bool:
            wanted = self._wanted(correction * float(np.interp(math.log(factor), factors, corrections)))
            return self._estimate(scale_width(self._architecture, factor)) <= wanted

        if fits(high):
            return high
        for _ in range(HALVINGS):
            middle = math.sqrt(low * high)
            if fits(middle):
                low = middle
            else:
                high = middle
        return low


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
