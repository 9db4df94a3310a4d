"""Decides when a search with a time limit proposes no more candidates, as late as leaves time to finish the best, and
for how many epochs these are finished if the machine has become slower since.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from nas.latency.budget import Budget
from nas.latency.several import processes_on
from nas.runs.shares import Shares
from nas.runs.spent import Stopwatch
from nas.runs.to_finish import to_finish
from nas.runs.trial import Timed, Trial
from nas.search.propose.pace import Pace, usual_scoring
from nas.search.search import Search, Workers

CERTIFYING_SECONDS = 20.0  # to export, time and score a winner, beside waiting for a quiet machine
TIMING_SECONDS = 15.0  # least forecast for finding a candidate and its width
LEAST_FINISH = 1 / 3  # share of a finish below which it is not shortened: the search rather ends late
MOST_FAILED = 3  # failed candidates after which a budget gets no more time for another one


class Deadline:
    """The deadline of one search whose plan has `minutes`; without them, every epoch of the finish is in time.

    The remaining time is forecast from the duration of epochs and timings so far. Another candidate is proposed only if
    it can be trained to the end, since others cannot win. However short the limit, proposals end only when every budget
    has a candidate. `finishing` are the workers that finish the best; they may be more than the workers that train
    candidates, with fewer threads each, or fewer with more.
    """

    def __init__(self, search: Search, stopwatch: Stopwatch, finishing: Workers) -> None:
        self._search = search
        self._finishing = finishing
        self._plan = search.study.search
        self._stopwatch = stopwatch
        self._to_finish = to_finish(search.run, search.study, search.budgets)  # begins when proposals have ended
        self._paces: dict[str, Pace] = {}
        self._timed: dict[str, Timed] = {}

    def passed(self, trials: Sequence[Trial], shares: Shares) -> bool:
        """Whether one more candidate than these, timed and trained to the end, would leave too little time, now or at
        an earlier call.
        """
        self._stopwatch.keep()
        if not _each_has_one(trials, shares):
            return False
        spent = self._stopwatch.spent
        if spent.closes(self._plan):
            return True
        timing = [each.seconds for each in map(self._timing, trials) if each.seconds is not None]
        seconds = self._left_seconds(trials, shares, another=True)
        seconds += max(TIMING_SECONDS, statistics.median(timing or [0.0]))
        if spent.seconds + seconds <= 60 * self._plan.minutes:
            return False
        self._stopwatch.close(self._plan.minutes)
        return True

    def has_room(self, trials: Sequence[Trial], going: Trial, shares: Shares) -> bool:
        """Whether the search ends in time, or no later than otherwise, if a paused one of these candidates goes on;
        `going` is that candidate with its further rung.
        """
        others = [trial for trial in trials if trial.architecture.key != going.architecture.key]
        without, seconds = (self._left_seconds(each, shares) for each in (trials, [*others, going]))
        return seconds <= max(without, 60 * self._plan.minutes - self._stopwatch.spent.seconds)

    def is_blind(self, trials: Sequence[Trial], shares: Shares, under_way: int) -> bool:
        """Whether no epoch has ended yet although as many trainings are under way as fit at a time. Timing another
        candidate now would only delay the first epochs, from which the remaining time is forecast.
        """
        if under_way < self._search.workers.concurrent or not _each_has_one(trials, shares):
            return False
        return not any(self._pace(trial).epochs for trial in trials)

    def epochs_left(self, trials: Sequence[Trial], shares: Shares) -> float:
        """Epochs still to train when proposals have ended: of candidates under way or paused, and of the finish."""
        under_way, paused = self._going_on(trials, shares)
        return sum(under_way) + sum(paused) + self._to_finish.epochs

    def epochs_in_time(self, whole: int, networks: Sequence[Trial]) -> int:
        """Epochs for which each of these networks can be finished in the time left, at most `whole`, and networks
        pruned after them too. Their own epochs in the search phase say how long one takes.
        """
        left = self._stopwatch.left_seconds(self._plan)
        if left == math.inf:
            return whole
        run, budgets = self._search.run, len(self._search.budgets)
        timed = [self._timing(trial) for trial in run.trials()]
        left -= budgets * self._certifying_seconds(timed)
        known = [(trial, pace) for trial in networks if not trial.failed and (pace := self._pace(trial)).epochs]
        scoring = usual_scoring(pace for _, pace in known)
        seconds = [
            # The company has trained on the workers of the finish already.
            (1.0 if trial.origin == "company" else self._slower) * pace.seconds / (pace.epochs + scoring * pace.scored)
            for trial, pace in known
        ]
        if not any(seconds):
            return whole
        pruned = len(self._to_finish.pruned) * [statistics.median(seconds)]
        longest = sum(_longest(self._finishing.concurrent, each) for each in (seconds, pruned))
        least = math.ceil(LEAST_FINISH * whole)
        lengths = range(whole, least, -1)
        return next((each for each in lengths if self._work(each, scoring) * longest <= left), least)

    def _going_on(self, trials: Sequence[Trial], shares: Shares) -> tuple[list[int], list[int]]:
        """Remaining epochs of each candidate that is under way, and of each that is paused and likely to become a
        finalist.
        """
        whole = self._search.study.recipe.epochs
        under_way: list[int] = []
        paused: list[int] = []
        for budget in shares.budgets:
            ours = [trial for trial in trials if shares.home(trial) == budget and trial.feasible and not trial.failed]
            under_way += [max(0, trial.until(whole) - self._pace(trial).epochs) for trial in ours]
            reached = sorted((trial.until(whole) for trial in ours), reverse=True)
            paused += [whole - each for each in reached[: self._plan.finalists]]
        return [each for each in under_way if each], [each for each in paused if each]

    def _left_seconds(self, trials: Sequence[Trial], shares: Shares, *, another: bool = False) -> float:
        """Forecast for all that is left to do; `another`: with one more candidate, trained to the end."""
        timed = [self._timing(trial) for trial in trials]
        found = self._certifying_seconds(timed) * sum(budget not in shares.given_up for budget in shares.budgets)
        known = [self._pace(trial) for trial in trials]
        scoring = usual_scoring(known)
        done = sum(each.epochs + scoring * each.scored for each in known)
        if not done:
            return found
        (under_way, paused), finish = self._going_on(trials, shares), self._to_finish
        to_come = [*paused, self._search.study.recipe.epochs] if another else paused

        def work(epochs: Sequence[int]) -> list[float]:
            return [self._work(each, scoring) for each in epochs]

        last = (
            work(finish.tries),
            [*work(finish.finalists), *self._company_work(trials, scoring)],
            work(finish.pruned),
        )
        waves = _longest(self._search.workers.concurrent, work(under_way), work(to_come))
        waves += self._slower * sum(_longest(self._finishing.concurrent, each) for each in last)
        return found + waves * sum(each.seconds for each in known) / done

    def _work(self, epochs: int, scoring: float) -> float:
        """The length of a training with its scorings, in epochs without one; `scoring`: the length of one."""
        return epochs + scoring * math.ceil(epochs / (self._search.study.recipe.score_every or max(1, epochs)))

    @property
    def _slower(self) -> float:
        """How many times as long as in the search phase an epoch of the finish takes, at most: with half of the
        threads, twice as long. With more threads it is faster, by an unknown factor which is not counted on.
        """
        return max(1.0, self._search.workers.threads / self._finishing.threads)

    def _certifying_seconds(self, timed: Sequence[Timed]) -> float:
        """Forecast for certifying one winner. Each of its timing processes may wait for a quiet machine, or take as
        long as the timings of candidates so far; a network of lower precision is timed in full precision too.
        """
        targets = self._search.targets
        seen = [each.seconds / len(targets) for one in timed for each in one.measured if each.seconds is not None]
        seconds = max(self._search.study.patience_seconds, statistics.median(seen or [0.0]))
        return CERTIFYING_SECONDS + min(2, len(targets)) * processes_on(self._search.target) * seconds

    def _company_work(self, trials: Sequence[Trial], scoring: float) -> list[float]:
        """The `_work` of each published network at its own width, in epochs of a typical candidate."""
        finish = self._to_finish
        usual = statistics.median(trial.multiply_adds for trial in trials)
        costs = {each.name: max(1.0, each.multiply_adds / usual) for each in self._search.run.company()}
        return [costs.get(name, 1.0) * self._work(left, scoring) for name, left in finish.company.items()]

    def _pace(self, trial: Trial) -> Pace:
        """The pace of a trial in the search phase so far; cached once that is complete."""
        key = trial.architecture.key
        whole = trial.until(self._search.study.recipe.epochs)
        if key not in self._paces or self._paces[key].epochs < whole:
            self._paces[key] = Pace.of(self._search.run.progress(trial, "search").history)
        return self._paces[key]

    def _timing(self, trial: Trial) -> Timed:
        """The measurements made for a trial; they are written before the trial, so that they can be cached."""
        key = trial.architecture.key
        if key not in self._timed:
            self._timed[key] = self._search.run.timed(trial)
        return self._timed[key]


def _longest(workers: int, *groups: Sequence[float]) -> float:
    """Epochs, or seconds, of the busiest worker if each training goes to the worker that is free first, group after
    group and the longest of a group first. Workers do not share a training.
    """
    work = [0.0] * workers
    for group in groups:
        for each in sorted(group, reverse=True):
            work[work.index(min(work))] += each
    return max(work)


def _each_has_one(trials: Sequence[Trial], shares: Shares) -> bool:
    """Whether each budget has a candidate, or needs none any more."""
    return all(_has_one(trials, budget, shares) for budget in shares.budgets)


def _has_one(trials: Sequence[Trial], budget: Budget, shares: Shares) -> bool:
    if budget in shares.given_up:
        return True
    ours = [trial for trial in trials if trial.feasible and shares.home(trial) == budget]
    return any(not trial.failed for trial in ours) or len(ours) >= MOST_FAILED
