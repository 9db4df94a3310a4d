"""When a search that is to be over in time proposes nothing more: as late as leaves the best time to be finished."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from nas.latency.budget import Budget
from nas.latency.several import processes_on
from nas.runs.shares import Shares
from nas.runs.spent import Stopwatch
from nas.runs.steps import rungs_for
from nas.runs.to_finish import to_finish
from nas.runs.trial import Timed, Trial
from nas.search.search import Search

CERTIFYING_SECONDS = 20.0  # of the winner for a budget, beside waiting for quiet moments: exported, timed, scored
TIMING_SECONDS = 15.0  # to find a candidate and its width, where that takes no longer here
MOST_FAILED = 3  # candidates for a budget, before the rest of the time is not spent on it either


class Deadline:
    """Of one search, whose plan has minutes.

    What is left to do is forecast from what epochs and timings took so far. Whatever the time, there is a candidate for
    every budget before nothing more is proposed.
    """

    def __init__(self, search: Search, stopwatch: Stopwatch) -> None:
        self._search = search
        self._plan = search.study.search
        self._stopwatch = stopwatch
        self._to_finish = to_finish(search.run, search.study, search.budgets)  # which begins when all is proposed
        self._seconds: dict[str, tuple[int, float]] = {}  # epochs of each trial and what they took
        self._timed: dict[str, Timed] = {}

    def passed(self, trials: Sequence[Trial], shares: Shares) -> bool:
        """Whether one more candidate than these would leave too little time, now or when that was asked before."""
        self._stopwatch.keep()
        if not _each_has_one(trials, shares):
            return False
        spent = self._stopwatch.spent
        if spent.closes(self._plan):
            return True
        if spent.seconds + self._left_seconds(trials, shares) <= 60 * self._plan.minutes:
            return False
        self._stopwatch.close(self._plan.minutes)
        return True

    def is_blind(self, trials: Sequence[Trial], shares: Shares, under_way: int) -> bool:
        """Whether nobody knows yet what an epoch takes, where as many are under way as train at a time: what is timed
        now would only keep them from telling.
        """
        if under_way < self._search.workers.concurrent or not _each_has_one(trials, shares):
            return False
        return not any(self._epochs(trial)[0] for trial in trials)

    def epochs_left(self, trials: Sequence[Trial], shares: Shares) -> float:
        """Epochs to come when nothing more is proposed: of what is under way or paused, and of what finishes."""
        return sum(self._going_on(trials, shares)) + self._to_finish.epochs

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
        timed = [self._timing(trial) for trial in trials]
        found = self._certifying_seconds(timed) * sum(budget not in shares.given_up for budget in shares.budgets)
        known = [self._epochs(trial) for trial in trials]
        epochs, seconds = sum(each for each, _ in known), sum(each for _, each in known)
        if not epochs:
            return found
        going_on, finish = self._going_on(trials, shares), self._to_finish
        waves = (
            rungs_for(plan, study.recipe.epochs)[0]  # of one more candidate
            + sum(going_on) / max(1, min(workers, len(going_on)))
            + sum(finish.tries) / min(workers, max(1, len(finish.tries)))
            + sum(sorted(finish.finalists, reverse=True)[::workers])
            + self._company_epochs(trials) / workers
        )
        timing = [each.seconds for each in timed if each.seconds is not None]
        return found + max(TIMING_SECONDS, statistics.median(timing or [0.0])) + waves * seconds / epochs

    def _certifying_seconds(self, timed: Sequence[Timed]) -> float:
        """Of one winner. Each of its processes may wait for quiet moments, or take as long as those that timed
        candidates here; what ships in a lower precision is timed in full precision too.
        """
        targets = self._search.targets
        seen = [each.seconds / len(targets) for one in timed for each in one.measured if each.seconds is not None]
        seconds = max(self._search.study.patience_seconds, statistics.median(seen or [0.0]))
        return CERTIFYING_SECONDS + min(2, len(targets)) * processes_on(self._search.target) * seconds

    def _company_epochs(self, trials: Sequence[Trial]) -> float:
        """Of published networks at their own width and what is pruned of them, as so many of a usual candidate."""
        finish = self._to_finish
        usual = statistics.median(trial.multiply_adds for trial in trials)
        costs = {each.name: max(1.0, each.multiply_adds / usual) for each in self._search.run.company()}
        return sum(costs.get(name, 1.0) * left for name, left in finish.company.items()) + sum(finish.pruned)

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

    def _timing(self, trial: Trial) -> Timed:
        """What was measured for a trial; it is written before that."""
        key = trial.architecture.key
        if key not in self._timed:
            self._timed[key] = self._search.run.timed(trial)
        return self._timed[key]


def _each_has_one(trials: Sequence[Trial], shares: Shares) -> bool:
    """Whether there is a candidate for each budget."""
    return all(_has_one(trials, budget, shares) for budget in shares.budgets)


def _has_one(trials: Sequence[Trial], budget: Budget, shares: Shares) -> bool:
    if budget in shares.given_up:
        return True
    ours = [trial for trial in trials if trial.feasible and shares.home(trial) == budget]
    return any(not trial.failed for trial in ours) or len(ours) >= MOST_FAILED
