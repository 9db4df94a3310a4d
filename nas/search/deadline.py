"""When a search that is to be over in time proposes nothing more: as late as leaves the best time to be finished."""

from __future__ import annotations

from collections.abc import Sequence

from nas.latency.budget import Budget
from nas.runs.shares import Shares, finishing_epochs
from nas.runs.spent import Stopwatch
from nas.runs.steps import rungs_for
from nas.runs.trial import Trial
from nas.search.search import Search
from nas.study import Study

CERTIFYING_SECONDS = 40.0  # of the winner for a budget: exported, timed in several processes, scored
TIMING_SECONDS = 15.0  # to find a candidate and its width


class Deadline:
    """Of one search, whose plan has minutes.

    What is left to do is forecast from what epochs took so far. Whatever the time, there is a candidate for every
    budget before nothing more is proposed.
    """

    def __init__(self, search: Search, stopwatch: Stopwatch) -> None:
        self._search = search
        self._stopwatch = stopwatch
        self._seconds: dict[str, tuple[int, float]] = {}  # epochs of each trial and what they took

    def passed(self, trials: Sequence[Trial], shares: Shares) -> bool:
        """Whether one more candidate than these would leave too little time."""
        self._stopwatch.keep()
        if not all(_has_one(trials, budget, shares) for budget in shares.budgets):
            return False
        needed = self._stopwatch.seconds + self._left_seconds(trials, shares)
        return needed > 60 * self._search.study.search.minutes

    def epochs_left(self, trials: Sequence[Trial], shares: Shares) -> float:
        """Epochs to come when nothing more is proposed: of what is under way or paused, and of what finishes."""
        whole = self._search.study.recipe.epochs
        left = 0
        for budget in shares.budgets:
            ours = [trial for trial in trials if shares.home(trial) == budget and trial.feasible and not trial.failed]
            done = [self._epochs(trial)[0] for trial in ours]
            under_way = [trial.until(whole) - epochs for trial, epochs in zip(ours, done, strict=True)]
            left += sum(max(0, each) for each in under_way)
            reached = sorted((max(epochs, trial.until(whole)) for trial, epochs in zip(ours, done, strict=True)))
            left += sum(whole - each for each in reached[::-1][: shares.plan.finalists])
        return left + finishing_epochs(self._search.study)

    def _left_seconds(self, trials: Sequence[Trial], shares: Shares) -> float:
        known = [self._epochs(trial) for trial in trials]
        epochs, seconds = sum(each for each, _ in known), sum(each for _, each in known)
        study = self._search.study
        certifying = CERTIFYING_SECONDS * len(shares.budgets)
        if not epochs:
            return certifying
        first = rungs_for(study.search, study.recipe.epochs)[0]
        at_a_time = min(self._search.workers.concurrent, _finishing(study))
        training = (self.epochs_left(trials, shares) / at_a_time + first) * seconds / epochs
        return TIMING_SECONDS + training + certifying

    def _epochs(self, trial: Trial) -> tuple[int, float]:
        """How many epochs of the search a trial has behind it, and what they took; read once when they are over."""
        key = trial.architecture.key
        whole = trial.until(self._search.study.recipe.epochs)
        if key not in self._seconds or self._seconds[key][0] < whole:
            history = self._search.run.progress(trial, "search").history
            self._seconds[key] = len(history), sum(epoch.seconds for epoch in history)
        return self._seconds[key]


def _finishing(study: Study) -> int:
    """How many trainings come after the candidates."""
    return len(study.asked) * study.search.finalists + len(study.search.company)


def _has_one(trials: Sequence[Trial], budget: Budget, shares: Shares) -> bool:
    if budget in shares.given_up:
        return True
    return any(trial.feasible and not trial.failed for trial in trials if shares.home(trial) == budget)
