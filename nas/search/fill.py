"""The width at which the measured latency of a network fills the budget: one factor on every width, then single parts.

Latency rises in steps: where channels are padded, 16 cost what 9 do, and 20 what 32 do. Where one factor ends below the
budget, since the next step of all layers together is above it, stages and decoders are changed one by one.

1. *The factor.* An estimate says which one to try, a quick measurement whether it fits. Measurements correct estimates
   for the factors around and between. The next one lies between what was measured inside and outside, and near the
   last one: an estimate that knows little of a kind of network may say that sixteen times its width fits.
2. *Single parts.* Rounds of networks with wider and narrower parts: one that should fill what is left of the budget,
   others that are estimated to fill less or more of it. Those of a round take turns, so that they compare.
3. *Confirmation.* Quick measurements are of few blocks and err by a few per cent, all of a round alike. So the best is
   measured as surely as the study asks. What that says of the error holds for the others too, and decides which is
   confirmed next.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.latency.budget import Budget
from nas.latency.estimates.work import BLOCK
from nas.latency.record import Latency
from space import Architecture, ArchitectureError
from space.errors import UnmeasuredError
from space.scale import NARROWEST, bisected, notches, parts, scale_width, with_part

WIDEST = 16.0
NEARLY_FULL = 0.92  # of the budget: enough for a factor; parts are changed after it
FULL_ENOUGH = 0.95
SAFE = 0.97  # of the budget: of twelve winners one took 3 % more when it was measured again, two 2 %, nine at most 1 %
WANTED = (FULL_ENOUGH + SAFE) / 2
MOST_MEASUREMENTS = 4  # to solve the factor
MOST_ROUNDS = 2  # of changes of single parts
MOST_CONFIRMATIONS = 3
REACHES = (0.6, 1.0, 1.5, 2.2)  # shares of what is left of the budget that a round's changes should add
LIKELIEST = 5  # combinations of wider and narrower parts that are estimated whole
OVER = 3.0  # times as bad is an estimate above the wanted one as one below
STEEPEST = 2.0  # a measured factor tells about others up to this power of what it missed the budget by,
NEAR = 1.5  # and about those within this factor

EstimateMilliseconds = Callable[[Architecture], float]  # without measuring
MeasureTogether = Callable[[Sequence[Architecture]], Sequence[Latency | None]]
"""Quickly, and they take turns; None for what the target cannot time."""
Confirm = Callable[[Architecture], Latency | None]
"""As surely as the study asks; None for what the target cannot time."""
Allows = Callable[[Architecture], bool]
"""Whether it is small enough to be looked at."""


def anything(architecture: Architecture) -> bool:
    """No limit."""
    return True


@dataclass(frozen=True, kw_only=True)
class Filled:
    """An architecture at the width that fills the budget, or the narrowest one if none is inside it."""

    architecture: Architecture
    latency: Latency
    factor: float
    """On every width of what was to be scaled."""
    adjusted: bool = False
    """Whether widths of single parts were changed beyond the factor."""


def fill(
    architecture: Architecture,
    budget: Budget,
    measure: MeasureTogether,
    confirm: Confirm,
    estimate: EstimateMilliseconds,
    allows: Allows = anything,
) -> Filled:
    """Widen or narrow `architecture` until its measured latency uses most of the budget without leaving it.

    What `allows` refuses is not tried, however much of the budget is left, but for the narrowest width. `measure` is
    quick, `confirm` is sure. The result was confirmed. It is outside the budget when the narrowest width
    is, or when all that were confirmed are.

    Raises: UnmeasuredError when the target cannot time any width that was tried.
    """
    tries = _Tries(architecture, budget, measure, estimate, allows)
    tries.solve_factor()
    for _ in range(MOST_ROUNDS):
        tries.adjust(correction=1.0)
    confirmed: list[Filled] = []
    best: Filled | None = None
    correction = 1.0  # of quick measurements
    for _ in range(MOST_CONFIRMATIONS):
        quick = tries.next(correction) if best is None else tries.fuller(best, correction)
        if quick is None:
            break
        latency = confirm(quick.architecture)
        if latency is None:
            continue
        sure = replace(quick, latency=latency)
        if sure.latency.flagged and tries.use(sure) > SAFE:
            again = confirm(quick.architecture)
            sure = sure if again is None else replace(quick, latency=budget.likelier(latency, again))
        confirmed.append(sure)
        correction = tries.use(sure) / tries.use(quick)
        if tries.use(sure) <= SAFE:
            best = max(filter(None, (best, sure)), key=tries.use)
            if tries.use(best) >= FULL_ENOUGH or sure.latency.flagged:  # a disturbed machine tells no finer
                break
    if not confirmed:
        raise UnmeasuredError(f"expected a width of {architecture.key} that the target can time, got none")
    return best or min(confirmed, key=tries.use)


class _Tries:
    """What was measured quickly on the way to an architecture's width, and what to measure next."""

    def __init__(
        self,
        architecture: Architecture,
        budget: Budget,
        measure: MeasureTogether,
        estimate: EstimateMilliseconds,
        allows: Allows,
    ) -> None:
        self._waiting: list[Filled] = []  # not confirmed yet
        self._tried: list[Filled] = []
        self._refused: set[str] = set()  # keys of what the target cannot time
        self._architecture = architecture
        self._budget = budget
        self._measure = measure
        self._estimate = estimate
        self._allows = allows

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
                if scale_width(self._architecture, factor).key not in self._refused:
                    break
                high = highest = factor  # what is wider asks for more memory, say
                continue
            if self.use(tried) > SAFE:
                high = factor
            else:
                low = factor
                if self.use(tried) >= NEARLY_FULL:
                    break
            missed = WANTED / self.use(tried)
            reach = max(NEAR, missed**STEEPEST, missed**-STEEPEST)
            lowest, highest = max(low, factor / reach), min(high, factor * reach)

    def adjust(self, correction: float) -> None:
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
        wanted = [now + share * left for share in REACHES]
        self._try(_adjusted(best.architecture, self._estimate, wanted), best.factor)

    def next(self, correction: float) -> Filled | None:
        """What to confirm first: the one that fills most of the budget without leaving it. Narrower ones are tried
        where there is none, and at last the narrowest is given although it is over.

        Measured latencies are to be multiplied by `correction`.
        """
        if not self._tried:
            return None
        if not self._likely(correction):
            self._narrow(correction)
        lowest = min(self._tried, key=self.use)
        return self._take(self._likely(correction) or [each for each in self._waiting if each is lowest])

    def fuller(self, best: Filled, correction: float) -> Filled | None:
        """What to confirm after `best`: one that fills more of the budget. Wider ones are tried where there is none."""
        above = self.use(best)
        if not self._likely(correction, above):
            self.adjust(correction)
        return self._take(self._likely(correction, above))

    def _likely(self, correction: float, above: float = 0.0) -> list[Filled]:
        """Those not confirmed that fill more than `above` of the budget, and do not leave it."""
        return [each for each in self._waiting if above < correction * self.use(each) <= SAFE]

    def _take(self, found: Sequence[Filled]) -> Filled | None:
        """The fullest, which waits no longer."""
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
        seen = {each.architecture.key for each in self._tried} | self._refused
        new = {each.key: each for each in architectures if each.key not in seen}
        new = {key: each for key, each in new.items() if factor == NARROWEST or self._allows(each)}
        latencies = self._measure(list(new.values())) if new else []
        self._refused |= {key for key, latency in zip(new, latencies, strict=True) if latency is None}
        tried = [
            Filled(architecture=each, latency=latency, factor=factor, adjusted=each != plain)
            for each, latency in zip(new.values(), latencies, strict=True)
            if latency is not None
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
        """The largest factor from `low` to `high` that is allowed and estimated to fit; an end where none does.

        Estimates are corrected by what was measured at the factors around; measured latencies by `correction`.
        """
        plain = sorted((math.log(each.factor), self._correction(each)) for each in self._tried if not each.adjusted)
        factors, corrections = zip(*plain, strict=True) if plain else ((0.0,), (1.0,))

        def fits(factor: float) -> bool:
            wanted = self._wanted(correction * float(np.interp(math.log(factor), factors, corrections)))
            scaled = scale_width(self._architecture, factor)
            return self._estimate(scaled) <= wanted and self._allows(scaled)

        if fits(high):
            return high
        return bisected(low, high, fits)


def _adjusted(
    architecture: Architecture, estimate: EstimateMilliseconds, wanted: Sequence[float]
) -> list[Architecture]:
    """For each of the `wanted` milliseconds: the widths of single parts changed so that the estimate comes near them,
    and stays below if it can.

    Each part's notches are estimated alone; sums of them tell which few of all combinations are worth an estimate.
    """
    now = estimate(architecture)
    changes = [_changes(architecture, part, estimate, now) for part in range(parts(architecture))]
    combined = np.full(1, now)
    for found in changes:
        combined = np.add.outer(combined, [added for _, added in found]).ravel()
    shape = [len(found) for found in changes]

    def nearest(milliseconds: float) -> Architecture:
        best, missed = architecture, math.inf
        for index in np.argsort(np.abs(combined - milliseconds), kind="stable")[:LIKELIEST]:
            places = np.unravel_index(index, shape)
            with contextlib.suppress(ArchitectureError):
                tried = architecture
                for part, (found, place) in enumerate(zip(changes, places, strict=True)):
                    tried = with_part(tried, part, found[place][0])
                left = milliseconds - estimate(tried)
                if (error := left if left >= 0 else OVER * -left) < missed:
                    best, missed = tried, error
        return best

    return [nearest(milliseconds) for milliseconds in wanted]


def _changes(
    architecture: Architecture, part: int, estimate: EstimateMilliseconds, now: float
) -> list[tuple[int, float]]:
    """By how many notches a part can change, and the milliseconds that each change adds to `now`, as estimated."""
    found = []
    for count in notches(architecture, part, vector=BLOCK):
        with contextlib.suppress(ArchitectureError):  # the layers around forbid it
            found.append((count, estimate(with_part(architecture, part, count)) - now))
    return found
