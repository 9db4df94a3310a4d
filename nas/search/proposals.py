"""What is trained next: seeds, random draws and the sampler's proposals, each at the width that fills the budget."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import space
from nas.latency.budget import unsettled
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.runs.trial import Origin, Trial
from nas.search.fill import Filled, fill
from nas.search.limits import limits_of
from nas.search.sampler import Sampler
from nas.search.search import Candidate, Search
from space.architecture import Architecture
from space.choices import Genotype
from space.errors import BudgetError

MOST_ATTEMPTS = 25  # draws in a row that are over the budget at any width, or known already


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """An architecture before its width is solved, and the number to tell the sampler about it under, if it is its."""

    architecture: Architecture
    genotype: Genotype
    number: int | None = None


class Proposals:
    """Candidates in their order: those a killed run left unfinished, seeds, random draws, guided ones.

    Every candidate is measured before it is given out, and written to the run's folder; one that no width brings
    inside the budget is written, told to the sampler, and not given out. Known architectures are not given out twice.
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
        startup = len(plan.seeds) + plan.random_trials
        self._sampler = Sampler(self._space, kind=plan.sampler, startup=startup, seed=plan.seed)
        self._asked: dict[str, int] = {}  # the sampler's numbers of its proposals that are in training, by key
        self._estimates = Estimates(search.study.data.size, search.num_classes, table)
        self._trials = {trial.architecture.key: self._judged(trial) for trial in search.run.trials()}
        for trial in (*search.run.company(), *self._trials.values()):
            self._learn_latency(trial.architecture, trial.latency)
        for trial in self._trials.values():
            if self._settled(trial) and trial.origin != "pruned":  # no sampler proposed it
                self._learn(trial)
        self._unfinished = [trial for trial in self._trials.values() if not self._settled(trial)]

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
        return None

    def finished(self, trial: Trial, miou: float | None, *, stopped: bool, failed: str) -> None:
        """Record how a candidate's training ended, and tell the sampler."""
        trial = replace(trial, stopped=stopped, failed=failed)
        self._record(trial)
        number = self._asked.pop(trial.architecture.key, None)
        if number is None:
            self._learn(trial)
        else:
            self._sampler.tell(number, miou=None if failed else miou, violation=self._violation(trial.latency))

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
        filled = self._fill(published)
        title = f"{name} x{filled.factor:.2f}{'+' if filled.adjusted else ''}"
        genotype = self._space.closest_genotype(published)
        return self._admit(
            Candidate(name=title, origin="seed", architecture=filled.architecture, genotype=genotype, parent=name),
            filled.latency,
        )

    def _new(self, origin: Origin, draw: Callable[[int], _Drawn]) -> Trial:
        """The first draw that is not known yet and can be brought inside the budget. `draw` is given the attempt."""
        name = f"{origin} {len(self._ours(origin)) + 1}"
        lowest: Latency | None = None
        for attempt in range(MOST_ATTEMPTS):
            drawn = draw(attempt)
            filled = self._fill(drawn.architecture)
            if lowest is None or self._violation(filled.latency) < self._violation(lowest):
                lowest = filled.latency
            known = self._trials.get(filled.architecture.key)
            if known is not None:
                if drawn.number is not None:
                    miou = self._run.progress(known, "search").miou
                    self._sampler.tell(drawn.number, miou=miou, violation=self._violation(known.latency))
                continue
            if drawn.number is not None:
                self._asked[filled.architecture.key] = drawn.number
            trial = self._admit(
                Candidate(name=name, origin=origin, architecture=filled.architecture, genotype=drawn.genotype),
                filled.latency,
            )
            if trial is not None:
                return trial
        assert lowest is not None, "there is more than one attempt"
        raise BudgetError(
            f"expected candidates inside {self._budget}, but {MOST_ATTEMPTS} draws in a row were over it at any width "
            f"or known already; the lowest took {lowest.milliseconds(self._budget.statistic):.2f} ms; "
            + (unsettled(lowest) or "raise the budget or widen the study's space")
        )

    def _random(self, attempt: int) -> _Drawn:
        drawn = self._space.sample(random.Random(f"{self._plan.seed}/{len(self._trials)}/{attempt}"))
        return _Drawn(architecture=drawn, genotype=self._space.genotype(drawn))

    def _guided(self, attempt: int) -> _Drawn:
        number, drawn, genotype = self._sampler.propose()
        return _Drawn(architecture=drawn, genotype=genotype, number=number)

    def _admit(self, candidate: Candidate, latency: Latency) -> Trial | None:
        """Write a measured candidate down; give it back if it is inside the budget, else tell the sampler."""
        trial = self._search.trial(len(self._trials) + 1, candidate, latency)
        self._record(trial)
        self._search.console.proposed(trial)
        if trial.feasible:
            return trial
        self.finished(trial, None, stopped=False, failed="")
        return None

    def _record(self, trial: Trial) -> None:
        self._trials[trial.architecture.key] = trial
        self._run.write_trial(trial)

    def _judged(self, trial: Trial) -> Trial:
        """A trial under the run's present budget, which may not be the one that it was made for."""
        feasible = self._budget.admits(trial.latency)
        if feasible != trial.feasible:
            trial = replace(trial, feasible=feasible)
            self._run.write_trial(trial)
        return trial

    def _settled(self, trial: Trial) -> bool:
        if not trial.feasible or trial.stopped or trial.failed or trial.origin == "pruned":
            return True
        return self._run.progress(trial, "search").done

    def _learn(self, trial: Trial) -> None:
        miou = None if trial.failed else self._run.progress(trial, "search").miou
        self._sampler.learn(trial.genotype, miou=miou, violation=self._violation(trial.latency))

    def _violation(self, latency: Latency) -> float:
        """Share of the budget that a latency is over it; 0 or less inside."""
        return latency.milliseconds(self._budget.statistic) / self._budget.milliseconds - 1

    def _fill(self, architecture: Architecture) -> Filled:
        """The width that fills the budget, found by estimates from what was measured so far."""

        def measure(scaled: Sequence[Architecture]) -> list[Latency]:
            latencies = self._meter.measure_together(scaled, within=self._search.quick)
            for one, latency in zip(scaled, latencies, strict=True):
                self._learn_latency(one, latency)
            return latencies

        def confirm(scaled: Architecture) -> Latency:
            latency = self._meter.measure(scaled, within=self._search.study.latency_within)
            self._learn_latency(scaled, latency)
            return latency

        return fill(architecture, self._budget, measure, confirm, self._estimates.architecture, self._allows)

    def _learn_latency(self, architecture: Architecture, latency: Latency) -> None:
        milliseconds = latency.milliseconds(self._budget.statistic)
        self._estimates.learn(architecture, milliseconds, disturbed=bool(latency.flagged))
