"""What is trained next: seeds, random draws and the sampler's proposals, each at the width that fills the budget."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import space
from nas.latency.budget import unsettled
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.runs.earlier import read_earlier
from nas.runs.folder import Order
from nas.runs.trial import Measured, Origin, Timed, Trial
from nas.search.candidates import draw, sampler_of
from nas.search.fill import Filled, fill
from nas.search.guidance import Guidance, before
from nas.search.halving import is_weak, passed
from nas.search.journal import Journal
from nas.search.limits import limits_of
from nas.search.measuring import time_each, time_one
from nas.search.sampler import Outcome
from nas.search.search import Candidate, Search
from space.architecture import Architecture
from space.choices import Genotype
from space.errors import ArchitectureError, BudgetError, UnmeasuredError

MOST_ATTEMPTS = 25  # draws in a row that are over the budget at any width, or known already


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """An architecture before its width is solved, and the number that the sampler knows it under, if it is its."""

    architecture: Architecture
    genotype: Genotype
    number: int | None = None


@dataclass(frozen=True, kw_only=True)
class _Solved:
    """A draw with its width, or one of its widths and why none of them can be timed, and what was measured for it."""

    architecture: Architecture
    latency: Latency | None
    factor: float
    adjusted: bool
    reason: str
    measured: tuple[Measured, ...]
    estimates: Estimates


class Proposals:
    """Candidates in their order: those a killed run left unfinished, seeds, random draws, guided ones.

    Every candidate is measured before it is given out, and written to the run's folder; one that no width brings
    inside the budget, or that the target cannot time, is written and not given out. Those that may be over it only
    since the machine was busy are timed once more when all others were proposed; so proposals do not depend on it.
    Known architectures are not given out twice. What is proposed depends on the trials before it, in their order, and
    on what they measured and scored: a run that was interrupted proposes what one that was not would have
    (`nas.search.guidance`).
    """

    def __init__(self, search: Search, meter: Measures, table: LatencyTable | None) -> None:
        """`table`: the latency table of the device that `meter` times on, if there is one."""
        plan = search.study.search
        self._search = search
        self._meter = meter
        self._run = search.run
        self._plan = plan
        self._budget = search.budget
        self._space = search.study.architectures()
        self._allows = limits_of(search.study, search.num_classes)
        # A candidate may begin before those just before it are over, one or some more than train at a time: a fast
        # training need not wait for a slow one. As many as when the run began, wherever it goes on.
        concurrent = search.workers.concurrent
        self._ahead = search.run.hold_to_order(Order(ahead=concurrent + concurrent // 2 - 1)).ahead
        if concurrent > self._ahead + 1:
            search.console.step(
                f"train   {self._ahead + 1} at a time, not {concurrent}: so that its candidates depend on its seed "
                "alone, a run goes on as it began"
            )
        startup = len(plan.seeds) + plan.random_trials
        sampler = sampler_of(self._space, kind=plan.sampler, startup=startup, seed=plan.seed)
        self._guidance = Guidance(sampler, self._budget, self._ahead, self._trained)
        self._estimates = Estimates(search.study.data.size, search.num_classes, table)
        self._trials = {trial.architecture.key: self._judged(trial) for trial in search.run.trials()}
        self._over = {key for key, trial in self._trials.items() if self._settled(trial)}  # nothing is to be done
        self._curves: dict[str, tuple[float, ...]] = {}  # mIoU after every epoch of those that are over, by key
        self._earlier = read_earlier(search.run)
        for trial in search.run.company():
            self._learn(trial)
        self._recall()
        for trial in self._trials.values():
            self._learn(trial)
        self._unfinished = [trial for key, trial in self._trials.items() if key not in self._over]
        self._doubts_timed = False
        self._guidance.repeat(self._in_order())
        self._journal = Journal(search.run, self._space, self._guidance.outcome, search.console.step)
        self._journal.hold_to(trial for trial in self._in_order() if trial.architecture.key in self._over)

    def _recall(self) -> None:
        """Let estimates and the sampler know what earlier runs found out: the same whenever the run goes on."""
        for each in self._earlier.trials:
            if each.latency is not None:
                milliseconds = each.latency.milliseconds(self._budget.statistic)
                self._estimates.learn(each.architecture, milliseconds, disturbed=bool(each.latency.flagged))
        for each in self._earlier.trials:
            if not each.genotype:
                continue
            if each.latency is None:
                milliseconds = self._estimates.architecture(each.architecture)
            else:
                milliseconds = each.latency.milliseconds(self._budget.statistic)
            if each.miou is not None or milliseconds > self._budget.milliseconds:
                self._guidance.recall(each, milliseconds)

    def waits(self) -> bool:
        """Whether the next candidate has to wait for trainings under way.

        A training that was about to stop when its run was killed stops here.
        """
        while True:
            number = self._unfinished[0].number if self._unfinished else self._next_number()
            known = [each for each in before(self._in_order(), number, self._ahead) if each.disturbed is None]
            if any(each.architecture.key not in self._over for each in known):
                return True
            if not self._unfinished:
                return False
            curve = self._curve(self._unfinished[0])
            if not curve or not self.is_weak(self._unfinished[0], len(curve), curve[-1]):
                return False
            self.finished(self._unfinished.pop(0), stopped=True, failed="")

    def next(self) -> Trial | None:
        """The next candidate to train; None when the plan is done.

        Raises: BudgetError when one draw after the other cannot be brought inside the budget.
        """
        if self._unfinished:
            return self._unfinished.pop(0)
        for name in self._plan.seeds:
            if not any(trial.parent == name for trial in self._ours("seed")):
                trial = self._seed(name)
                if trial is not None:
                    return trial
        if len(self._ours("random")) < self._plan.random_trials:
            return self._new("random", self._random)
        if len(self._ours("guided")) < self._plan.guided_trials:
            return self._new("guided", self._guided)
        if not self._doubts_timed:
            self._doubts_timed = True
            self._time_doubted()
        return self._unfinished.pop(0) if self._unfinished else None

    def is_weak(self, trial: Trial, epoch: int, miou: float) -> bool:
        """Whether a training stops after this epoch with this mIoU."""
        if not self._plan.stop_weak:
            return False
        earlier = [
            self._curve(each)
            for each in before(self._in_order(), trial.number, self._ahead)
            if each.feasible and each.disturbed is None and each.budget_milliseconds == trial.budget_milliseconds
        ]
        return is_weak(miou, epoch, self._search.study.recipe.epochs, earlier)

    def finished(self, trial: Trial, *, stopped: bool, failed: str) -> None:
        """Record how a candidate's training ended."""
        ended = replace(trial, stopped=stopped, failed=failed)
        self._record(ended)
        self._over.add(trial.architecture.key)
        self._journal.ended(ended)

    def _in_order(self) -> list[Trial]:
        return sorted(self._trials.values(), key=lambda trial: trial.number)

    def _next_number(self) -> int:
        return max((trial.number for trial in self._trials.values()), default=0) + 1

    def _time_doubted(self) -> None:
        """Time again what a busy machine may have brought over the budget; what is inside now is to be trained."""
        for trial in self._in_order():
            if trial.origin == "pruned" or trial.failed or trial.latency is None:
                continue
            if not self._budget.doubts(trial.latency):
                continue
            try:
                again = time_one(self._meter, trial.architecture, within=self._search.study.latency_within)
            except UnmeasuredError:
                continue
            latency = self._budget.likelier(trial.latency, again)
            first = trial.disturbed or trial.latency
            trial = replace(trial, latency=latency, feasible=self._budget.admits(latency), disturbed=first)
            self._record(trial)
            self._search.console.timed_again(trial)
            if not self._settled(trial):
                self._over.discard(trial.architecture.key)
                self._unfinished.append(trial)

    def _ours(self, origin: Origin) -> list[Trial]:
        """Candidates of an origin that count towards the plan: made for this budget, and seeds or inside it."""
        return [
            trial
            for trial in self._trials.values()
            if trial.origin == origin
            and trial.budget_milliseconds == self._budget.milliseconds
            and (trial.feasible or origin == "seed")
        ]

    def _seed(self, name: str) -> Trial | None:
        published = space.load(name)
        solved = self._solve(published)
        genotype: Genotype = {}  # where narrow ranges leave no way on from what is nearest, samplers are not told of it
        with contextlib.suppress(ArchitectureError):
            genotype = self._space.closest_genotype(published)
        candidate = Candidate(
            name=f"{name} x{solved.factor:.2f}{'+' if solved.adjusted else ''}",
            origin="seed",
            architecture=solved.architecture,
            genotype=genotype,
            parent=name,
        )
        return self._admit(candidate, solved)

    def _new(self, origin: Origin, draw: Callable[[int], _Drawn]) -> Trial:
        """The first draw that is not known yet and can be brought inside the budget. `draw` is given how many draws
        before it led to what is known since the last candidate was recorded.
        """
        name = f"{origin} {len(self._ours(origin)) + 1}"
        lowest: Latency | None = None
        repeats = 0
        for _ in range(MOST_ATTEMPTS):
            drawn = draw(repeats)
            solved = self._solve(drawn.architecture)
            timed = [each for each in (lowest, solved.latency) if each is not None]
            lowest = min(timed, key=lambda latency: latency.milliseconds(self._budget.statistic), default=None)
            if solved.architecture.key in self._trials:
                repeats += 1
                if drawn.number is not None:
                    self._guidance.repeats(drawn.number)
                continue
            repeats = 0
            trial = self._admit(
                Candidate(name=name, origin=origin, architecture=solved.architecture, genotype=drawn.genotype),
                solved,
                drawn.number,
            )
            if trial is not None:
                return trial
        seen, advice = "none could be timed", ""
        if lowest is not None:
            seen = f"the lowest took {lowest.milliseconds(self._budget.statistic):.2f} ms"
            advice = unsettled(lowest)
        raise BudgetError(
            f"expected candidates inside {self._budget}, but {MOST_ATTEMPTS} draws in a row were over it at any width "
            f"or known already; {seen}; {advice or 'raise the budget or widen the space of the study'}"
        )

    def _random(self, repeats: int) -> _Drawn:
        chance = random.Random(f"{self._plan.seed}/{self._next_number() - 1}/{repeats}")
        drawn, genotype = draw(self._space, chance)
        return _Drawn(architecture=drawn, genotype=genotype)

    def _guided(self, repeats: int) -> _Drawn:
        number, drawn, genotype = self._guidance.propose(self._in_order(), self._next_number())
        return _Drawn(architecture=drawn, genotype=genotype, number=number)

    def _admit(self, candidate: Candidate, solved: _Solved, number: int | None = None) -> Trial | None:
        """Write a candidate down; give it back if it is inside the budget. `number`: the sampler's of it."""
        trial = self._search.trial(self._next_number(), candidate, solved.latency, failed=solved.reason)
        self._run.write_timed(trial.architecture, Timed(statistic=self._budget.statistic, measured=solved.measured))
        self._record(trial)
        self._estimates = solved.estimates
        if number is not None:
            self._guidance.becomes(number, trial)
        self._search.console.proposed(trial)
        if trial.feasible:
            return trial
        self._over.add(trial.architecture.key)
        self._journal.ended(trial)
        return None

    def _record(self, trial: Trial) -> None:
        self._trials[trial.architecture.key] = trial
        self._run.write_trial(trial)

    def _judged(self, trial: Trial) -> Trial:
        """A trial under the run's present budget, which may not be the one that it was made for."""
        feasible = trial.inside(self._budget)
        if feasible != trial.feasible:
            trial = replace(trial, feasible=feasible)
            self._run.write_trial(trial)
        if trial.budget_milliseconds != self._budget.milliseconds:  # what was doubted is as good as another one now
            trial = replace(trial, disturbed=None)
        return trial

    def _settled(self, trial: Trial) -> bool:
        if not trial.feasible or trial.failed or trial.origin == "pruned":
            return True
        progress = self._run.progress(trial, "search")
        return progress.done or (trial.stopped and bool(progress.history))

    def _trained(self, trial: Trial) -> Outcome:
        """How a training of a search ended; what stopped early is of as many epochs as it saw. Where weak ones stop,
        what the others scored there is told too.
        """
        history = self._run.progress(trial, "search").history
        if trial.failed or not history:
            return Outcome(miou=None)
        last = history[-1]
        earlier = passed([each.scores.miou for each in history], last.epochs) if self._plan.stop_weak else {}
        return Outcome(miou=last.scores.miou, fidelity=last.epoch / last.epochs, earlier=earlier)

    def _curve(self, trial: Trial) -> tuple[float, ...]:
        """mIoU after every epoch; of a training that is over it is read once."""
        key = trial.architecture.key
        if key in self._curves:
            return self._curves[key]
        curve = tuple(epoch.scores.miou for epoch in self._run.progress(trial, "search").history)
        if key in self._over:
            self._curves[key] = curve
        return curve

    def _solve(self, architecture: Architecture) -> _Solved:
        """The width that fills the budget, found by estimates from what was measured so far."""
        measured: list[Measured] = []
        refused: list[tuple[Architecture, str]] = []
        estimates = self._estimates.copy()

        def note(one: Architecture, latency: Latency | UnmeasuredError) -> Latency | None:
            if isinstance(latency, UnmeasuredError):
                refused.append((one, str(latency)))
                return None
            milliseconds, disturbed = latency.milliseconds(self._budget.statistic), bool(latency.flagged)
            estimates.learn(one, milliseconds, disturbed=disturbed)
            measured.append(Measured(architecture=one, milliseconds=milliseconds, disturbed=disturbed))
            return latency

        def measure(scaled: Sequence[Architecture]) -> list[Latency | None]:
            latencies = time_each(self._meter, scaled, within=self._search.quick)
            return [note(one, latency) for one, latency in zip(scaled, latencies, strict=True)]

        def confirm(scaled: Architecture) -> Latency | None:
            try:
                return note(scaled, time_one(self._meter, scaled, within=self._search.study.latency_within))
            except UnmeasuredError as error:
                return note(scaled, error)

        def solved(one: Architecture, latency: Latency | None, filled: Filled | None, reason: str) -> _Solved:
            return _Solved(
                architecture=one,
                latency=latency,
                factor=1.0 if filled is None else filled.factor,
                adjusted=filled is not None and filled.adjusted,
                reason=reason,
                measured=tuple(measured),
                estimates=estimates,
            )

        try:
            filled = fill(architecture, self._budget, measure, confirm, estimates.architecture, self._allows)
        except UnmeasuredError:
            one, reason = refused[0]
            return solved(one, None, None, f"cannot be timed: {reason}")
        return solved(filled.architecture, filled.latency, filled, "")

    def _learn(self, trial: Trial) -> None:
        """Let estimates take into account what was measured for a trial."""
        timed = self._run.timed(trial)
        if timed.measured and timed.statistic == self._budget.statistic:
            for each in timed.measured:
                self._estimates.learn(each.architecture, each.milliseconds, disturbed=each.disturbed)
            return
        if trial.latency is None:
            return
        milliseconds = trial.latency.milliseconds(self._budget.statistic)
        self._estimates.learn(trial.architecture, milliseconds, disturbed=bool(trial.latency.flagged))
