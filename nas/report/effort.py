"""What guidance was worth: guided candidates beside random draws that cost as much training."""

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

    Random search is what so many of the draws that were trained whole would give: on average over all choices of them.
    Guided search are the first guided candidates that cost as much, in epochs.
    """

    random_trials: int
    """Random draws that were trained in this run, whole or not."""
    guided_trials: int
    guided_cost: float
    """Of all guided ones, in whole trainings."""
    draws: int
    """Random draws that were trained whole."""
    compared: int
    """At which cost both are looked at, in whole trainings: that of all guided ones, or what the draws allow."""
    best_random_miou: float | None
    best_guided_miou: float | None
    earlier_draws: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """How many of `draws` are of runs that this one took over."""

    @property
    def fewer(self) -> bool:
        """Whether there are not as many draws as the guided ones cost."""
        return self.compared < self.guided_cost


def effort_of(trials: Sequence[TrialSummary], epochs: int, earlier: Mapping[str, float]) -> Effort:
    """Guided beside random search, among these candidates; `epochs` are those of a whole training. `earlier`: the mIoU
    of random draws of other runs, by key.
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
    """mIoU at the end of the search phase; None where it did not get there."""
    return candidate.search_miou if len(candidate.search) >= epochs and not candidate.failed else None


def earlier_draws(earlier: Earlier, budget: Budget) -> dict[str, float]:
    """The mIoU of what other runs drew at random for a budget, by key."""
    return {
        each.architecture.key: each.miou
        for each in earlier.trials
        if each.drawn_for_milliseconds == budget.milliseconds
        and each.miou is not None
        and each.latency is not None
        and budget.admits(each.latency)
    }
