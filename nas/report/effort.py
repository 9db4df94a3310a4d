"""The value of guidance: guided candidates compared with random draws that cost as much training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nas.latency.budget import Budget
from nas.report.chance import expected_best
from nas.report.standings import TrialSummary
from nas.runs.earlier import Earlier
from space import strict


@dataclass(frozen=True, kw_only=True)
class Effort:
    """Guided and random search at the same cost, by mIoU inside the budget after whole trainings of the search phase.

    Random search is represented by the random draws that were trained whole: the expected best of as many of them as
    the cost allows. Guided search is represented by the first guided candidates up to the same cost in epochs.
    """

    random_trials: int
    """Number of random draws that were trained in this run, whole or not."""
    guided_trials: int
    guided_cost: float
    """Cost of all guided candidates, in whole trainings."""
    draws: int
    """Number of random draws that were trained whole."""
    compared: int
    """Cost at which both are compared, in whole trainings: that of all guided candidates, or the number of draws if
    that is smaller."""
    best_random_miou: float | None
    best_guided_miou: float | None
    earlier_draws: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Number of `draws` from runs that this one took over."""

    @property
    def fewer(self) -> bool:
        """Whether there are fewer draws than the guided candidates cost in whole trainings."""
        return self.compared < self.guided_cost


def effort_of(trials: Sequence[TrialSummary], epochs: int, earlier: Mapping[str, float]) -> Effort:
    """Guided compared with random search among these candidates; `epochs` are those of a whole training. `earlier`:
    mIoU of random draws of other runs, by key.
    """
    trained = [each for each in trials if each.search and each.timing.within_budget]
    guided = [each for each in trained if each.origin == "guided"]
    random = [each for each in trained if each.origin == "random"]
    own = {each.key: miou for each in random if (miou := _whole(each, epochs)) is not None}
    draws = {**earlier, **own}
    cost = sum(len(each.search) for each in guided)
    compared = min(-(-cost // epochs), len(draws))
    left, found = compared * epochs, []
    for each in guided:
        left -= len(each.search)
        if left >= 0:
            found.append(_whole(each, epochs))
    return Effort(
        random_trials=len(random),
        guided_trials=len(guided),
        guided_cost=cost / epochs,
        draws=len(draws),
        compared=compared,
        best_random_miou=expected_best(list(draws.values()), compared) if compared else None,
        best_guided_miou=max((miou for miou in found if miou is not None), default=None),
        earlier_draws=len(draws) - len(own),
    )


def _whole(candidate: TrialSummary, epochs: int) -> float | None:
    """mIoU at the end of the search phase; None for a candidate that did not reach it."""
    return candidate.search_miou if len(candidate.search) >= epochs and not candidate.failed else None


def earlier_draws(earlier: Earlier, budget: Budget) -> dict[str, float]:
    """mIoU of the random draws of other runs for a budget, by key."""
    return {
        each.architecture.key: each.miou
        for each in earlier.trials
        if each.drawn_for_milliseconds == budget.milliseconds
        and each.miou is not None
        and each.latency is not None
        and budget.admits(each.latency)
    }
