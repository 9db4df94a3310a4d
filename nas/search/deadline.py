"""When a search that is to be over in time proposes nothing more: as late as leaves the best time to be finished."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from nas.latency.budget import Budget
from nas.latency.several import PROCESSES
from nas.runs.shares import Shares, finishing_epochs
from nas.runs.spent import Stopwatch
from nas.runs.steps import rungs_for
from nas.runs.trial import Trial
from nas.search.search import Search

CERTIFYING_SECONDS = 20.0  # of the winner for a budget, beside waiting for quiet moments: exported, timed, scored
TIMING_SECONDS = 15.0  # to find a candidate and its width
MOST_FAILED = 3  # candidates for a budget, before the rest of the time is not spent on it either


class Deadline:
    """Of one search, whose plan has minutes.

    What is left to do is forecast from what epochs took so far. Whatever the time, there is a candidate for every
    budget before nothing more is proposed.
    """

    def __init__(self, search: Search, stopwatch: Stopwatch) -> None:
        self._search = search
        self._plan = search.study.search
        self._stopwatch = stopwatch
        self._seconds: dict[str, tuple[int, float]] = {}  # epochs of each trial and what they took

    def passed(self, trials: Sequence[Trial], shares: Shares) -> bool:
        """Whether one more candidate than these would leave too little time, now or when that was asked before."""
        self._stopwatch.keep()
        if not all(_has_one(trials, budget, shares) for budget in shares.budgets):
            return False
        spent = self._stopwatch.spent
        if spent.closes(self._plan):
            return True
        if spent.seconds + self._left_seconds(trials, shares) <= 60 * self._plan.minutes:
            return False
        self._stopwatch.close(self._plan.minutes)
        return True

    def epochs_left(self, trials: Sequence[Trial], shares: Shares) -> float:
        """Epochs to come when nothing more is proposed: of what is under way or paused, and of what finishes."""
        return sum(self._going_on(trials, shares)) + finishing_epochs(self._search.study)

    def _going_on(self, trials: Sequence[Trial], shares: Shares) -> list[int]:
        """Epochs of each candidate that is under way, or paused and among the finalists, as it seems now."""
        whole = self._search.study.recipe.epochs
        left: list[int] = []
        for budget in shares.budgets:
            ours = [trial for trial in trials if shares.home(trial) == budget and trial.feasible and not trial.failed]
            under_way = {trial.architecture.key: trial.until(whole) - self._epochs(trial)[0] for trial in ours}
            left += [max(0, each) for each in under_way.values()]
            reached = sorted((trial.until(whole) for trial in ours), reverse=True)
            left += [whole - each for each in reached[: self._plan.finalists]]
        return [each for each in left if each]

    def _left_seconds(self, trials: Sequence[Trial], shares: Shares) -> float:
        study, plan, workers = self._search.study, self._plan, self._search.workers.concurrent
        certifying = CERTIFYING_SECONDS + PROCESSES * study.patience_seconds
        found = certifying * sum(budget not in shares.given_up for budget in shares.budgets)
        known = [self._epochs(trial) for trial in trials]
        epochs, seconds = sum(each for each, _ in known), sum(each for _, each in known)
        if not epochs:
            return found
        going_on = self._going_on(trials, shares)
        finishing = len(shares.budgets) * plan.finalists
        waves = (
            rungs_for(plan, study.recipe.epochs)[0]  # of one more candidate
            + sum(going_on) / max(1, min(workers, len(going_on)))
            + sum(plan.tried_epochs) / min(workers, max(1, len(plan.tried_epochs)))
            + math.ceil(finishing / workers) * plan.longest_finish
            + self._company_epochs(trials) / workers
        )
        return found + TIMING_SECONDS + waves * seconds / epochs

    def _company_epochs(self, trials: Sequence[Trial]) -> float:
        """Of published networks at their own width and what is pruned of them, as so many of a usual candidate."""
        plan, company = self._plan, self._search.run.company()
        usual = statistics.median(trial.multiply_adds for trial in trials)
        costs = [max(1.0, each.multiply_adds / usual) for each in company if each.name in plan.company]
        each = self._search.study.recipe.epochs + plan.longest_finish
        pruned = min(plan.pruned, len(plan.company)) * len(self._search.budgets)
        return sum(costs) * each + pruned * plan.longest_finish

    def _epochs(self, trial: Trial) -> tuple[int, float]:
        """How many epochs of the search a trial has behind it, and what they took; read once when they are over."""
        key = trial.architecture.key
        whole = trial.until(self._search.study.recipe.epochs)
        if key not in self._seconds or self._seconds[key][0] < whole:
            history = self._search.run.progress(trial, "search").history
            # Nothing is timed while the best are finished.
            seconds = sum(epoch.seconds * (1 - (epoch.waited_for_lane or 0.0)) for epoch in history)
            self._seconds[key] = len(history), seconds
        return self._seconds[key]


def _has_one(trials: Sequence[Trial], budget: Budget, shares: Shares) -> bool:
    if budget in shares.given_up:
        return True
    ours = [trial for trial in trials if trial.feasible and shares.home(trial) == budget]
    return any(not trial.failed for trial in ours) or len(ours) >= MOST_FAILED
