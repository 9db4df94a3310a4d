"""`Search`: a run and what is asked of it, which is what every step of a search needs to know."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import space
from nas.data import Dataset
from nas.latency.budget import Budget, Budgets
from nas.latency.protocol import QUICK, WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.folder import Order, RunFolder
from nas.runs.trial import Origin, Trial
from nas.runs.unreached import reachable
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
    joined: bool = False
    """Whether on a cluster that was joined, which others may use too; else on a Ray of our own."""
    per_gpu: int = 1
    """Trainings that share a GPU, where there are GPUs."""
    timed_beside: bool = False
    """Whether candidates are timed while these train, on another device."""
    leaves_core_of: str = ""
    """The GPU on which candidates are timed on the same machine, where these train on others: a core is left to it."""
    timing_node: bool = False
    """Whether a node of the cluster does all the timing."""

    @property
    def gpu_share(self) -> float:
        """Of a GPU, that each training has: as Ray counts them, to four digits, none too much."""
        return math.floor(10_000 / self.per_gpu) / 10_000 if self.device == "cuda" else 0.0

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        sharing = f", {self.per_gpu} on each GPU" if self.device == "cuda" and self.per_gpu > 1 else ""
        return f"{self.concurrent} at a time{sharing}, each with {threads}"


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
    def budgets(self) -> Budgets:
        """What the latency of a candidate may be. Budgets that nothing reaches are left out, where there are others."""
        return reachable(self.run, self.study)

    @property
    def target(self) -> Target:
        """Where candidates are timed, in full precision where the study names several."""
        return Target.parse(self.study.target)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The target in every precision that a network may ship in, the highest first, however the study lists them."""
        return self.target.in_precisions(self.study.precisions)

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
        """How sure a latency is that only leads to another: half of its 95 % interval, as a share of it. No surer than
        others; no less sure than usual either, since a measurement takes seconds before its first call.
        """
        within = self.study.latency_within
        return max(within, QUICK * min(within, WITHIN))

    def trial(
        self,
        number: int,
        candidate: Candidate,
        latency: Latency | None,
        failed: str = "",
        budget: Budget | None = None,
    ) -> Trial:
        """A candidate with its sizes, as it is written into the run's folder; `failed` says why it has no latency.
        `budget`: which one it is made for, the largest unless given.
        """
        budget, architecture = budget or self.budgets.largest, candidate.architecture
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


def ahead_of(search: Search) -> int:
    """How many candidates that are still trained another one may begin before it knows the outcome of.

    One may begin before those just before it are over, one or some more than train at a time: a fast training need not
    wait for a slow one, nor any for the next candidate to be measured. A single training on the device that times would
    gain nothing by that. As many as when the run began, wherever it goes on.
    """
    workers, concurrent = search.workers, search.workers.concurrent
    more = max(concurrent // 2, int(workers.timed_beside))
    threads = workers.threads if workers.device == "cpu" else 0
    ahead = search.run.hold_to_order(Order(ahead=concurrent + more - 1, threads=threads)).ahead
    if concurrent > ahead + 1:
        search.console.step(
            f"train   {ahead + 1} at a time, not {concurrent}: so that its candidates depend on its seed alone, a run "
            "goes on as it began"
        )
    return ahead
