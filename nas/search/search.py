"""`Search`: a run and what is asked of it, which is what every step of a search needs to know."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import space
from nas.data import Dataset
from nas.latency.budget import Budget
from nas.latency.protocol import QUICK
from nas.latency.record import Latency
from nas.latency.target import PRECISIONS, Target
from nas.runs.folder import RunFolder
from nas.runs.trial import Origin, Trial
from nas.search.console import Console
from nas.study import Study
from space.architecture import Architecture
from space.choices import Genotype


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who trains."""

    concurrent: int
    """Trainings at a time."""
    threads: int
    """CPU threads of each."""
    device: str
    """As PyTorch calls it: cpu or cuda."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network that is to become a trial."""

    name: str
    """For people, as `Trial.name`."""
    origin: Origin
    architecture: Architecture
    genotype: Genotype = field(default_factory=dict)
    """What the sampler answered, if one did."""
    parent: str = ""
    """The published network that it is, is a scaling of, or was cut from."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A run's folder, the study that it answers with its target spelled out, its data, who trains, and what is said."""

    run: RunFolder
    study: Study
    dataset: Dataset
    workers: Workers
    console: Console

    @property
    def budget(self) -> Budget:
        """What the latency of a candidate may be."""
        return Budget.parse(self.study.budget)

    @property
    def target(self) -> Target:
        """Where candidates are timed, in full precision where the study names several."""
        return Target.parse(self.study.target)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The target in every precision that a network may ship in, the highest first, however the study lists them."""
        asked = [each for each in PRECISIONS if each in self.study.precisions]
        return tuple(replace(self.target, precision=each) for each in asked) or (self.target,)

    def ships_on(self, trial: Trial) -> Target:
        """The target in the precision in which a trial was the fastest."""
        if not self.study.precisions or trial.latency is None:
            return self.target
        return replace(self.target, precision=Target.parse(trial.latency.target).precision)

    @property
    def num_classes(self) -> int:
        """How many classes a network tells apart."""
        return self.dataset.num_classes

    @property
    def quick(self) -> float:
        """How sure a latency is that only leads to another: half of its 95 % interval, as a share of it."""
        return QUICK * self.study.latency_within

    def trial(self, number: int, candidate: Candidate, latency: Latency | None, failed: str = "") -> Trial:
        """A candidate with its sizes, as it is written into the run's folder; `failed` says why it has no latency."""
        budget, architecture = self.budget, candidate.architecture
        return Trial(
            number=number,
            name=candidate.name,
            origin=candidate.origin,
            parent=candidate.parent,
            architecture=architecture,
            latency=latency,
            feasible=latency is not None and budget.admits(latency),
            budget_milliseconds=budget.milliseconds,
            parameters=space.parameters(architecture, self.num_classes),
            multiply_adds=space.multiply_adds(architecture, self.study.data.size, self.num_classes),
            genotype=candidate.genotype,
            failed=failed,
        )
