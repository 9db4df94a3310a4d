"""What is trained next: seeds, random draws and the sampler's proposals, each at the width that fills the budget."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import space
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.record import Budget, Latency
from nas.runs.folder import RunFolder
from nas.runs.trial import Origin, Trial
from nas.search.console import Console
from nas.search.fill import Confirm, Filled, Measure, fill
from nas.search.sampler import Sampler
from nas.study import Study
from space.architecture import Architecture
from space.axes import Genotype
from space.errors import BudgetError

MOST_ATTEMPTS = 25  # draws in a row that are over the budget at any width, or known already


class Proposals:
    """Candidates in their order: those a killed run left unfinished, seeds, random draws, guided ones.

    Every candidate is measured before it is given out, and written to the run's folder; one that no width brings
    inside the budget is written, told to the sampler, and not given out. Known architectures are not given out twice.
    """

    def __init__(
        self,
        run: RunFolder,
        study: Study,
        budget: Budget,
        num_classes: int,
        console: Console,
        *,
        measure: Measure,
        confirm: Confirm,
        table: LatencyTable | None = None,
    ) -> None:
        plan = study.search
        self._run = run
        self._study = study
        self._budget = budget
        self._measure = measure
        self._confirm = confirm
        self._num_classes = num_classes
        self._console = console
        self._space = study.architectures()
        startup = len(plan.seeds) + plan.random_trials
        self._sampler = Sampler(self._space, kind=plan.sampler, startup=startup, seed=plan.seed)
        self._asked: dict[str, int] = {}
        self._estimates = Estimates(study.data.size, num_classes, table)
        self._trials = {trial.architecture.key: self._judged(trial) for trial in run.trials()}
        for trial in (*run.company(), *self._trials.values()):
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
        plan = self._study.search
        for name in plan.seeds:
            if not any(trial.parent == name for trial in self._ours("seed")):
                trial = self._seed(name)
                if trial is not None:
                    return trial
        if len(self._ours("random")) < plan.random_trials:
            return self._drawn("random")
        if len(self._ours("guided")) < plan.guided_trials:
            return self._drawn("guided")
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
        return self._admit(title, "seed", filled.architecture, filled.latency, genotype, parent=name)

    def _drawn(self, origin: Origin) -> Trial:
        index = len(self._ours(origin)) + 1
        lowest = float("inf")
        for attempt in range(MOST_ATTEMPTS):
            number = None
            if origin == "guided":
                number, drawn, genotype = self._sampler.propose()
            else:
                rng = random.Random(f"{self._study.search.seed}/{len(self._trials)}/{attempt}")
                drawn = self._space.sample(rng)
                genotype = self._space.genotype(drawn)
            filled = self._fill(drawn)
            lowest = min(lowest, filled.latency.milliseconds(self._budget.statistic))
            known = self._trials.get(filled.architecture.key)
            if known is not None:
                if number is not None:
                    miou = self._run.progress(known, "search").miou
                    self._sampler.tell(number, miou=miou, violation=self._violation(known.latency))
                continue
            if number is not None:
                self._asked[filled.architecture.key] = number
            trial = self._admit(f"{origin} {index}", origin, filled.architecture, filled.latency, genotype)
            if trial is not None:
                return trial
        raise BudgetError(
            f"expected candidates inside {self._budget}, but {MOST_ATTEMPTS} draws in a row were over it at any width "
            f"or known already; the lowest took {lowest:.2f} ms; raise the budget or widen the study's space"
        )

    def _admit(
        self,
        name: str,
        origin: Origin,
        architecture: Architecture,
        latency: Latency,
        genotype: Genotype,
        *,
        parent: str = "",
    ) -> Trial | None:
        """Write a measured candidate down; give it back if it is inside the budget, else tell the sampler."""
        trial = measured_trial(
            len(self._trials) + 1,
            name,
            origin,
            architecture,
            latency,
            self._budget,
            self._study,
            self._num_classes,
            genotype=genotype,
            parent=parent,
        )
        self._record(trial)
        self._console.proposed(trial)
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
            latencies = self._measure(scaled)
            for one, latency in zip(scaled, latencies, strict=True):
                self._learn_latency(one, latency)
            return latencies

        def confirm(scaled: Architecture) -> Latency:
            latency = self._confirm(scaled)
            self._learn_latency(scaled, latency)
            return latency

        return fill(architecture, self._budget, measure, confirm, self._estimates.architecture)

    def _learn_latency(self, architecture: Architecture, latency: Latency) -> None:
        milliseconds = latency.milliseconds(self._budget.statistic)
        self._estimates.learn(architecture, milliseconds, disturbed=bool(latency.flagged))


def measured_trial(
    number: int,
    name: str,
    origin: Origin,
    architecture: Architecture,
    latency: Latency,
    budget: Budget,
    study: Study,
    num_classes: int,
    *,
    genotype: Genotype | None = None,
    parent: str = "",
) -> Trial:
    """A candidate with its measurement and sizes."""
    return Trial(
        number=number,
        name=name,
        origin=origin,
        parent=parent,
        architecture=architecture,
        latency=latency,
        feasible=budget.admits(latency),
        budget_milliseconds=budget.milliseconds,
        parameters=space.parameters(architecture, num_classes),
        multiply_adds=space.multiply_adds(architecture, study.data.size, num_classes),
        genotype=genotype or {},
    )
