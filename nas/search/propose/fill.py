"""Finds the width at which a network's measured latency fills the budget: one factor on all widths, then single parts.

Latency rises in steps: where channels are padded, 9 of them cost as much as 16, and 20 as much as 32. When all layers
take the next step together, the latency may jump from well below the budget to above it. Then the widths of single
stages and decoders are changed until the estimate fills the budget (`nas.search.propose.parts`). A measurement takes
seconds and an estimate next to no time, hence two phases:

1. *Approach.* Quick measurements, of few blocks, correct the estimate for this network until one is near the budget.
   The next factor lies between those measured inside and outside the budget, and not far from the last one: an estimate
   may be so wrong for an unfamiliar kind of network that it puts sixteen times its width inside the budget.
2. *Confirmation.* The width that is then estimated to fill the budget is measured as precisely as the study asks. If it
   does not fill the budget, the result corrects the estimate for another width, a few times.

Estimates that are near from the beginning, by a latency table which a few measurements have corrected, need no quick
measurements: the first measurement is precise, its error corrects the second, and a third follows only if neither of
them nearly fills the budget.

How full is full enough depends on the precision of latencies: differences below it cannot be measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.errors import UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.search.propose.parts import CountMultiplyAdds, EstimateMilliseconds, adjusted, distance
from space import Architecture
from space.scale import NARROWEST, bisected, scale_width

WIDEST = 16.0
SAFE = 0.97  # most of the budget to use: measured again, 1 of 12 winners took 3 % more, 2 took 2 %, 9 at most 1 %
FULL_ENOUGH = 0.95  # least share of the budget to use, where latencies are known to a per cent
NEARLY_FULL = 0.9  # share of the budget that counts as nearly full: near enough to be confirmed
LOWER = 0.03  # of the budget: the aim is lowered by this for each confirmation over the budget after the first
MOST_MEASUREMENTS = 4  # quick ones
MOST_CONFIRMATIONS = 4
NEAR_CONFIRMATIONS = 2  # confirmations after which nearly full is full enough, where estimates were near
RESOLUTION = 1.5  # latencies closer than this many times their precision are not distinguished
NEXT = 1.1  # step to another factor (another width of the stem, say) where all nearby ones were measured
STEEPEST = 2.0  # the next factor is within a ratio of the last: that by which it missed the budget, to this power,
NEAR = 1.5  # or this ratio, whichever is larger

Measure = Callable[[Architecture], Latency | None]
"""Measures an architecture; None where the target cannot time it."""
Allows = Callable[[Architecture], bool]
"""Whether an architecture is within the size limits."""
_Correction = Callable[[float], float]
"""The factor that corrects an estimate, as a function of the estimated milliseconds."""


def anything(architecture: Architecture) -> bool:
    """No limit."""
    return True


@dataclass(frozen=True, kw_only=True)
class Filled:
    """An architecture at the width that fills the budget, or at the narrowest width if none is inside it."""

    architecture: Architecture
    latency: Latency
    factor: float
    """Factor on all widths of the original architecture."""
    adjusted: bool = False
    """Whether the widths of single parts were changed as well."""


def fill(
    architecture: Architecture,
    budget: Budget,
    measure: Measure,
    confirm: Measure,
    estimate: EstimateMilliseconds,
    allows: Allows = anything,
    *,
    multiply_adds: CountMultiplyAdds,
    within: float,
    near: bool = False,
) -> Filled:
    """Widen or narrow `architecture` until its measured latency uses most of the budget without exceeding it.

    Widths that `allows` refuses are not tried, however much of the budget is left, except the narrowest one. `measure`
    measures quickly, `confirm` to a precision of `within` (half of the 95 % interval, as a share). `near` says that the
    estimate is near enough to need no quick measurements. Of widths with equal estimates, those with the most
    `multiply_adds` are preferred. The result was confirmed. It is over the budget only if the narrowest width is, or
    all widths that were confirmed.

    Raises: UnmeasuredError when the target cannot time any width that was tried.
    """
    full_enough = min(FULL_ENOUGH, SAFE - RESOLUTION * within)
    tries = _Tries(architecture, budget, estimate, multiply_adds, allows, full_enough)
    if not near:
        tries.measure(measure)
    return tries.confirm(confirm, few=NEAR_CONFIRMATIONS if near else MOST_CONFIRMATIONS)


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """An architecture to measure."""

    architecture: Architecture
    factor: float
    adjusted: bool = False


@dataclass(frozen=True, kw_only=True)
class _Tried:
    """A measurement, quick or precise."""

    choice: _Choice
    latency: Latency
    use: float
    """The latency as a share of the budget."""


class _Tries:
    """The measurements on the way to an architecture's width, and the choice of the next one."""

    def __init__(
        self,
        architecture: Architecture,
        budget: Budget,
        estimate: EstimateMilliseconds,
        multiply_adds: CountMultiplyAdds,
        allows: Allows,
        full_enough: float,
    ) -> None:
        self._architecture = architecture
        self._budget = budget
        self._estimate = estimate
        self._multiply_adds = multiply_adds
        self._allows = allows
        self._full_enough = full_enough
        self._quick: list[_Tried] = []
        self._sure: list[_Tried] = []
        self._refused: dict[Architecture, float] = {}  # the factor of each architecture that the target cannot time

    def measure(self, measure: Measure) -> None:
        """Measure quickly until one is near the budget, or no width is left between those inside and outside."""
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
        """Measure precisely until one fills the budget, or nearly fills it after a `few`; the fullest inside it.

        Raises: UnmeasuredError when the target cannot time any.
        """
        for _ in range(MOST_CONFIRMATIONS):
            choice = self._promising() or self._next() or self._last_resort()
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
            # On a disturbed machine another measurement would be no more precise.
            enough = bool(self._quick) or tried.use >= NEARLY_FULL
            if tried.use <= SAFE and (tried.use >= self._full_enough or (tried.latency.flagged and enough)):
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
        """The measurements that correct estimates: the confirmed ones, and the quick ones scaled by the mean error that
        the confirmed ones reveal in them.
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
        """The fullest choice that fills the budget by a quick measurement, while nothing is confirmed."""
        if self._sure:
            return None
        found = [each for each in self._timeable if self._full_enough <= each.use <= SAFE]
        return max(found, key=lambda each: each.use).choice if found else None

    @property
    def _timeable(self) -> list[_Tried]:
        """The quick measurements, without those that the target could not time when they were to be confirmed."""
        return [each for each in self._quick if each.choice.architecture not in self._refused]

    def _last_resort(self) -> _Choice | None:
        """A quickly measured choice to confirm where there is no new one: the fullest inside, or the least over."""
        left = self._timeable
        if self._sure or not left:
            return None
        inside = [each for each in left if each.use <= SAFE]
        return (max(inside, key=lambda each: each.use) if inside else min(left, key=lambda each: each.use)).choice

    def _next(self) -> _Choice | None:
        """The choice that is estimated to fill the budget best, inside it if possible; None where all were measured
        already, or where one is confirmed inside and all others are estimated to be over.
        """
        known = self._known
        correction = self._correction(known)
        lowest, highest = self._between(known)
        solved = self._solved(lowest, highest, correction)
        ends = any(each.use > SAFE and each.choice.factor == highest for each in known)
        other = math.sqrt(lowest * highest)  # in between, where the solved factor gives nothing new
        if self._sure and not self._refused and solved > NARROWEST:  # try another width of the stem as well
            other = min(solved * NEXT, WIDEST)
        seen = self._seen
        choices = (  # a generator, since each choice takes many estimates
            choice
            for factor in (solved, other)
            for choice in self._choices(factor, correction, steps=factor < highest or ends)
            if choice.architecture not in seen and (factor == NARROWEST or self._allows(choice.architecture))
        )
        if not self._sure:
            return next(choices, None)
        found = list(choices)
        inside = [each for each in found if self._estimated_use(each.architecture, correction) <= 1]
        if not inside and any(each.use <= SAFE for each in self._sure):
            return None
        return min(inside or found, key=lambda choice: self._misses(choice, correction), default=None)

    def _misses(self, choice: _Choice, correction: _Correction) -> float:
        """The estimated distance of a choice from the wanted share of the budget."""
        return distance(self._estimated_use(choice.architecture, correction), self._wanted)

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
        """The widest factor to try: wider than one that the target cannot time would need even more memory, say."""
        return min(self._refused.values(), default=WIDEST)

    @property
    def _seen(self) -> set[Architecture]:
        """The architectures that are not to be measured again."""
        return {each.choice.architecture for each in (*self._quick, *self._sure)} | self._refused.keys()

    @property
    def _wanted(self) -> float:
        """The share of the budget to aim at; lower after confirmations over the budget."""
        over = sum(each.use > SAFE for each in self._sure)
        return (self._full_enough + SAFE) / 2 - LOWER * max(0, over - 1)

    def _choices(self, factor: float, correction: _Correction, *, steps: bool) -> Sequence[_Choice]:
        """The choices at a factor: with single parts changed so that the estimate fills the budget with the most
        multiply-adds, and unchanged. `steps`: whether the next step of all layers is estimated to exceed the budget.
        """
        plain = _Choice(architecture=scale_width(self._architecture, factor), factor=factor)
        if not steps or factor == NARROWEST:
            return (plain,)
        use = self._estimated_use(plain.architecture, correction)
        wanted = self._estimate(plain.architecture) * self._wanted / use
        found = adjusted(plain.architecture, self._estimate, self._multiply_adds, wanted, self._seen)
        return (_Choice(architecture=found, factor=factor, adjusted=found != plain.architecture), plain)

    def _correction(self, known: Sequence[_Tried]) -> _Correction:
        """The correction of estimates, interpolated between the errors of known measurements."""
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
        """The largest factor from `low` to `high` that is allowed and estimated to fit the budget; `low` where none
        does.
        """

        def fits(factor: float) -> bool:
            scaled = scale_width(self._architecture, factor)
            return self._estimated_use(scaled, correction) <= self._wanted and self._allows(scaled)

        if fits(high):
            return high
        return bisected(low, high, fits)
