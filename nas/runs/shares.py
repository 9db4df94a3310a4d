"""The proposals that a search has left for each budget, as a function of its plan and its candidates so far.

Several budgets share the plan. Every published network is scaled to each budget, so that each has its seeds; random
draws and the sampler's trials are divided. A candidate is made for one budget and counts for all that it is inside of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from nas.latency.budget import Budget, Budgets
from nas.runs.steps import effort_left
from nas.runs.trial import Origin, Trial
from nas.study import SearchPlan, Study


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of a search plan, and the budget that the next candidate is for."""

    budgets: Budgets
    plan: SearchPlan
    """The share of the plan that each budget has."""
    epochs: int
    """Epochs of a whole training."""
    given_up: frozenset[Budget] = frozenset()
    """Budgets for which nothing more is proposed."""
    closed: bool = False
    """Whether nothing more is proposed at all, whatever is left."""

    @classmethod
    def of(cls, study: Study, budgets: Budgets, given_up: Iterable[Budget] = ()) -> Shares:
        """The shares of these budgets in a study's plan."""
        plan, count = study.search, len(budgets)
        share = replace(
            plan,
            random_trials=math.ceil(plan.random_trials / count),
            guided_trials=math.ceil(plan.guided_trials / count),
        )
        return cls(budgets=budgets, plan=share, epochs=study.recipe.epochs, given_up=frozenset(given_up))

    def without(self, budget: Budget) -> Shares:
        """The same shares, with one more budget given up."""
        return replace(self, given_up=self.given_up | {budget})

    def home(self, trial: Trial) -> Budget:
        """The budget that a candidate was made for, or the largest if that one is no longer asked for."""
        return self.budgets.of(trial.budget_milliseconds)

    def bound(self, trial: Trial) -> Budget:
        """The budget that a candidate must keep to be trained: one over its own is not trained for a larger one."""
        home = self.home(trial)
        return replace(home, milliseconds=min(home.milliseconds, trial.budget_milliseconds))

    def competing(self, trials: Sequence[Trial], budget: Budget) -> list[Trial]:
        """The candidates among which a budget's finalists are chosen: those made for it or, where there are none, those
        whose own budget is no longer asked for.
        """
        made = [trial for trial in trials if trial.budget_milliseconds == budget.milliseconds]
        return made or [trial for trial in trials if self.home(trial) == budget]

    def ours(self, trials: Sequence[Trial], origin: Origin, budget: Budget) -> list[Trial]:
        """Candidates of an origin that count towards a budget's share: made for it and, except seeds, inside it."""
        return [
            trial
            for trial in trials
            if trial.origin == origin and trial.is_for(budget) and (origin == "seed" or trial.inside(budget))
        ]

    def seeds_left(self, trials: Sequence[Trial]) -> list[tuple[str, Budget]]:
        """The published networks still to be scaled, each with its budget."""
        if self.closed:
            return []
        known = {(trial.parent, budget) for budget in self.budgets for trial in self.ours(trials, "seed", budget)}
        left = [(name, budget) for name in self.plan.seeds for budget in self.budgets if budget not in self.given_up]
        return [each for each in left if each not in known]

    def random_left(self, trials: Sequence[Trial], budget: Budget) -> int:
        """Number of random draws left for a budget."""
        return max(0, self.plan.random_trials - len(self.ours(trials, "random", budget)))

    def effort_left(self, trials: Sequence[Trial], budget: Budget) -> int:
        """Epochs left for a budget, including its seeds and random draws; 0 or less where none are left."""
        return effort_left(self.plan, trials, budget.milliseconds, self.epochs)

    def turn(self, trials: Sequence[Trial]) -> tuple[Origin, Budget] | None:
        """Origin and budget of the next candidate once all seeds are there: the budget with the most work left, the
        smallest of equals. None when nothing is left.
        """
        if self.closed:
            return None
        origins: tuple[Origin, ...] = ("random", "guided")
        for origin in origins:
            left = self.random_left if origin == "random" else self.effort_left
            counts = {budget: left(trials, budget) for budget in self.budgets if budget not in self.given_up}
            if counts and max(counts.values()) > 0:
                return origin, max(counts, key=lambda budget: counts[budget])
        return None

    def proposes(self, trials: Sequence[Trial]) -> bool:
        """Whether more candidates will be proposed."""
        return bool(self.seeds_left(trials)) or self.turn(trials) is not None
