"""The width at which the measured latency of a network fills the budget: one factor on every width, then single parts.

Latency rises in steps: where channels are padded, 16 cost what 9 do, and 20 what 32 do. Where the factor that is
estimated to fit ends below the budget, since the next step of all layers together is above it, stages and decoders are
changed one by one until the estimate fills it. To measure costs seconds, to estimate nothing, so:

1. *Nearly there.* Quick measurements, of few blocks, correct the estimate of this network until one is near the budget.
   The next factor lies between what was measured inside and outside, and near the last one: an estimate that knows
   little of a kind of network may say that sixteen times its width fits.
2. *Confirmed.* What is estimated to fill the budget after that is measured as surely as the study asks. Where it does
   not, what it says corrects the estimate for the next, a few times.

An estimate that is near from the beginning, by a latency table which a few measurements have corrected, needs no quick
measurements: the first one is sure, what it missed by corrects the second, and there is a third only where neither of
them nearly fills the budget.

How full is full enough depends on how surely a latency is known: nothing is gained by what no measurement tells.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from nas.errors import UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.estimates.work import BLOCK
from nas.latency.record import Latency
from space import Architecture, ArchitectureError
from space.scale import NARROWEST, bisected, notches, parts, scale_width, with_part

WIDEST = 16.0
SAFE = 0.97  # of the budget: of twelve winners one took 3 % more when it was measured again, two 2 %, nine at most 1 %
FULL_ENOUGH = 0.95  # where latencies are known to a per cent
NEARLY_FULL = 0.9  # of the budget, from which on a network is confirmed, or one like it
LOWER = 0.03  # of the budget, for each that left it when it was confirmed, but for the first
MOST_MEASUREMENTS = 4  # quick ones
MOST_CONFIRMATIONS = 4
NEAR_CONFIRMATIONS = 2  # after which nearly full is full enough, where estimates were near
TELLS = 1.5  # times what a latency is sure to: what lies closer together is not told apart
NEXT = 1.1  # times a factor: another width of the stem, say, where all that is near was measured
LIKELIEST = 8  # combinations of wider and narrower parts that are estimated whole
MOST_COMBINATIONS = 10**7  # that are looked at: ten parts would have thirty times as many
OVER = 3.0  # times as bad is an estimate above the wanted one as one below
STEEPEST = 2.0  # a measured factor tells about others up to this power of what it missed the budget by,
NEAR = 1.5  # and about those within this factor

EstimateMilliseconds = Callable[[Architecture], float]  # without measuring
Measure = Callable[[Architecture], Latency | None]
"""None for what the target cannot time."""
Allows = Callable[[Architecture], bool]
"""Whether it is small enough to be looked at."""
_Correction = Callable[[float], float]
"""What an estimate of so many milliseconds is to be multiplied by."""


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
    measure: Measure,
    confirm: Measure,
    estimate: EstimateMilliseconds,
    allows: Allows = anything,
    *,
    within: float,
    near: bool = False,
) -> Filled:
    """Widen or narrow `architecture` until its measured latency uses most of the budget without leaving it.

    What `allows` refuses is not tried, however much of the budget is left, but for the narrowest width. `measure` is
    quick, `confirm` is sure to `within`, half of its 95 % interval as a share. `near`: the estimate is, so that nothing
    is measured quickly. The result was confirmed. It is outside the budget when the narrowest width is, or when all
    that were confirmed are.

    Raises: UnmeasuredError when the target cannot time any width that was tried.
    """
    tries = _Tries(architecture, budget, estimate, allows, min(FULL_ENOUGH, SAFE - TELLS * within))
    if not near:
        tries.measure(measure)
    return tries.confirm(confirm, few=NEAR_CONFIRMATIONS if near else MOST_CONFIRMATIONS)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What is to be measured."""

    architecture: Architecture
    factor: float
    adjusted: bool = False


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """What was measured, quickly or surely."""

    choice: _Choice
    latency: Latency
    use: float
    """The share of the budget."""


class _Tries:
    """What was measured on the way to an architecture's width, and what to measure next."""

    def __init__(
        self,
        architecture: Architecture,
        budget: Budget,
        estimate: EstimateMilliseconds,
        allows: Allows,
        full_enough: float,
    ) -> None:
        self._architecture = architecture
        self._budget = budget
        self._estimate = estimate
        self._allows = allows
        self._full_enough = full_enough
        self._quick: list[_Tried] = []
        self._sure: list[_Tried] = []
        self._refused: dict[Architecture, float] = {}  # factors of what the target cannot time

    def measure(self, measure: Measure) -> None:
        """Measure quickly until one is near the budget, or nothing is left between what is inside and outside."""
        for _ in range(MOST_MEASUREMENTS):
            choice = self._next()
            if choice is None:
                return
            tried = self._tried(choice, measure(choice.architecture))
            if tried is None:
                continue
            self._quick.append(tried)
            if NEARLY_FULL <= tried.use <= 1 / NEARLY_FULL:
                return

    def confirm(self, confirm: Measure, *, few: int) -> Filled:
        """Measure surely until one fills the budget, or nearly does after a `few` of them, and give the fullest that
        does not leave it.

        Raises: UnmeasuredError when the target cannot time any.
        """
        for _ in range(MOST_CONFIRMATIONS):
            choice = self._promising() or self._next() or self._left()
            if choice is None:
                break
            tried = self._tried(choice, confirm(choice.architecture))
            if tried is None:
                continue
            if tried.latency.flagged and tried.use > SAFE:
                again = confirm(choice.architecture)
                likelier = tried.latency if again is None else self._budget.likelier(tried.latency, again)
                tried = replace(tried, latency=likelier, use=self._use(likelier))
            self._sure.append(tried)
            # A disturbed machine tells no finer.
            fine = bool(self._quick) or tried.use >= NEARLY_FULL
            if tried.use <= SAFE and (tried.use >= self._full_enough or (tried.latency.flagged and fine)):
                break
            if len(self._sure) >= few and any(NEARLY_FULL <= each.use <= SAFE for each in self._sure):
                break
        if not self._sure:
            raise UnmeasuredError(f"expected a width of {self._architecture.key} that the target can time, got none")
        inside = [each for each in self._sure if each.use <= SAFE]
        best = max(inside, key=lambda each: each.use) if inside else min(self._sure, key=lambda each: each.use)
        return Filled(
            architecture=best.choice.architecture,
            latency=best.latency,
            factor=best.choice.factor,
            adjusted=best.choice.adjusted,
        )

    def _tried(self, choice: _Choice, latency: Latency | None) -> _Tried | None:
        if latency is None:
            self._refused[choice.architecture] = choice.factor
            return None
        return _Tried(choice=choice, latency=latency, use=self._use(latency))

    def _use(self, latency: Latency) -> float:
        return latency.milliseconds(self._budget.statistic) / self._budget.milliseconds

    @property
    def _known(self) -> list[_Tried]:
        """What corrects estimates: what was confirmed, and quick measurements, all of which may err alike, by as much
        as the confirmed ones say.
        """
        if not self._sure:
            return self._quick
        if not self._quick:
            return self._sure
        correction = self._correction(self._quick)
        errors = []
        for each in self._sure:
            estimate = self._estimate(each.choice.architecture)
            errors.append(math.log(each.use * self._budget.milliseconds / (estimate * correction(estimate))))
        error = math.exp(sum(errors) / len(errors))
        return [*(replace(each, use=each.use * error) for each in self._quick), *self._sure]

    def _promising(self) -> _Choice | None:
        """What fills the budget by a quick measurement, before any is confirmed."""
        if self._sure:
            return None
        found = [each for each in self._timeable if self._full_enough <= each.use <= SAFE]
        return max(found, key=lambda each: each.use).choice if found else None

    @property
    def _timeable(self) -> list[_Tried]:
        """What was measured quickly, and not refused when it was to be confirmed."""
        return [each for each in self._quick if each.choice.architecture not in self._refused]

    def _left(self) -> _Choice | None:
        """What is left to confirm where nothing new is: the fullest inside, or what leaves the budget least."""
        left = self._timeable
        if self._sure or not left:
            return None
        inside = [each for each in left if each.use <= SAFE]
        return (max(inside, key=lambda each: each.use) if inside else min(left, key=lambda each: each.use)).choice

    def _next(self) -> _Choice | None:
        """What is estimated to fill the budget, as far as that is known; None where it was measured already."""
        known = self._known
        correction = self._correction(known)
        lowest, highest = self._between(known)
        solved = self._solved(lowest, highest, correction)
        ends = any(each.use > SAFE and each.choice.factor == highest for each in known)
        other = math.sqrt(lowest * highest)  # in between, where the estimate says that there is nothing
        if self._sure and not self._refused and solved > NARROWEST:  # at another width of the stem too
            other = min(solved * NEXT, WIDEST)
        seen = self._seen
        choices = (  # found as they are asked for: each takes many estimates
            choice
            for factor in (solved, other)
            for choice in self._choices(factor, correction, steps=factor < highest or ends)
            if choice.architecture not in seen and (factor == NARROWEST or self._allows(choice.architecture))
        )
        if not self._sure:
            return next(choices, None)
        return min(choices, key=lambda choice: self._misses(choice, correction), default=None)

    def _misses(self, choice: _Choice, correction: _Correction) -> float:
        """How far from the wanted share of the budget it is estimated to be."""
        left = self._wanted - self._estimated_use(choice.architecture, correction)
        return left if left >= 0 else OVER * -left

    def _between(self, known: Sequence[_Tried]) -> tuple[float, float]:
        """The factors between which the next one lies."""
        low = max((each.choice.factor for each in known if each.use <= SAFE), default=NARROWEST)
        high = max(low, min((each.choice.factor for each in known if each.use > SAFE), default=self._widest))
        if not known:
            return low, high
        last = known[-1]
        missed = self._wanted / last.use
        reach = max(NEAR, missed**STEEPEST, missed**-STEEPEST)
        return max(low, last.choice.factor / reach), min(high, self._widest, last.choice.factor * reach)

    @property
    def _widest(self) -> float:
        """The widest factor to try: what is wider than one that the target cannot time asks for more memory, say."""
        return min(self._refused.values(), default=WIDEST)

    @property
    def _seen(self) -> set[Architecture]:
        """What is not to be measured again."""
        return {each.choice.architecture for each in (*self._quick, *self._sure)} | self._refused.keys()

    @property
    def _wanted(self) -> float:
        """The share of the budget to aim at: less where what was confirmed left it."""
        over = sum(each.use > SAFE for each in self._sure)
        return (self._full_enough + SAFE) / 2 - LOWER * max(0, over - 1)

    def _choices(self, factor: float, correction: _Correction, *, steps: bool) -> Sequence[_Choice]:
        """With single parts changed so that the estimate fills the budget where the factor alone does not; without too.
        `steps`: whether the next step of all layers together is estimated to leave it.
        """
        plain = _Choice(architecture=scale_width(self._architecture, factor), factor=factor)
        use = self._estimated_use(plain.architecture, correction)
        if not steps or factor == NARROWEST or self._full_enough <= use <= SAFE:
            return (plain,)
        wanted = self._estimate(plain.architecture) * self._wanted / use
        found = _adjusted(plain.architecture, self._estimate, wanted, self._seen)
        return (_Choice(architecture=found, factor=factor, adjusted=found != plain.architecture), plain)

    def _correction(self, known: Sequence[_Tried]) -> _Correction:
        """What estimates are to be multiplied by, from what is known of the networks around."""
        points = []
        for each in known:
            estimate = self._estimate(each.choice.architecture)
            points.append((math.log(estimate), math.log(each.use * self._budget.milliseconds / estimate)))
        estimates, corrections = zip(*sorted(points), strict=True) if points else ((0.0,), (0.0,))
        return lambda milliseconds: math.exp(float(np.interp(math.log(milliseconds), estimates, corrections)))

    def _estimated_use(self, architecture: Architecture, correction: _Correction) -> float:
        """The share of the budget that an architecture is estimated to use."""
        estimate = self._estimate(architecture)
        return estimate * correction(estimate) / self._budget.milliseconds

    def _solved(self, low: float, high: float, correction: _Correction) -> float:
        """The largest factor from `low` to `high` that is allowed and estimated to fit; an end where none does."""

        def fits(factor: float) -> bool:
            scaled = scale_width(self._architecture, factor)
            return self._estimated_use(scaled, correction) <= self._wanted and self._allows(scaled)

        if fits(high):
            return high
        return bisected(low, high, fits)


def _adjusted(
    architecture: Architecture, estimate: EstimateMilliseconds, wanted: float, seen: Set[Architecture]
) -> Architecture:
    """The widths of single parts changed so that the estimate comes near the `wanted` milliseconds, and stays below if
    it can. What is `seen` is no choice.

    Each part's notches are estimated alone; sums of them tell which few of all combinations are worth an estimate.
    """
    now = estimate(architecture)
    changes = _smallest([_changes(architecture, part, estimate, now) for part in range(parts(architecture))])
    combined = np.full(1, now)
    for found in changes:
        combined = np.add.outer(combined, [added for _, added in found]).ravel()
    shape = [len(found) for found in changes]
    best, missed = architecture, math.inf
    for index in np.argsort(np.abs(combined - wanted), kind="stable")[:LIKELIEST]:
        places = np.unravel_index(index, shape)
        with contextlib.suppress(ArchitectureError):
            tried = architecture
            for part, (found, place) in enumerate(zip(changes, places, strict=True)):
                tried = with_part(tried, part, found[place][0])
            if tried in seen:
                continue
            left = wanted - estimate(tried)
            if (error := left if left >= 0 else OVER * -left) < missed:
                best, missed = tried, error
    return best


def _changes(
    architecture: Architecture, part: int, estimate: EstimateMilliseconds, now: float
) -> list[tuple[int, float]]:
    """By how many notches a part can change, and the milliseconds that each change adds to `now`, as estimated."""
    found = []
    for count in notches(architecture, part, vector=BLOCK):
        with contextlib.suppress(ArchitectureError):  # the layers around forbid it
            found.append((count, estimate(with_part(architecture, part, count)) - now))
    return found


def _smallest(changes: Sequence[Sequence[tuple[int, float]]]) -> list[list[tuple[int, float]]]:
    """Of each part so many of the smallest changes that all combinations can be looked at."""
    most = max(map(len, changes))
    while math.prod(min(most, len(found)) for found in changes) > MOST_COMBINATIONS:
        most -= 1
    return [sorted(sorted(found, key=lambda change: abs(change[0]))[:most]) for found in changes]
