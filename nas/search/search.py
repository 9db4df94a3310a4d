"""`Search`: the run, its study and its resources, shared by every step of a search."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import space
from nas.data import Dataset
from nas.host.words import counted
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
    """The processes that train, and the resources of each."""

    concurrent: int
    """Number of trainings at a time."""
    threads: int
    """CPU threads of each training."""
    device: str
    """Device type as PyTorch names it: cpu or cuda."""
    joined: bool = False
    """True on a cluster that the search joined and that others may use too; False on a Ray instance of its own."""
    per_gpu: int = 1
    """Number of trainings that share a GPU, where there are GPUs."""
    timed_beside: bool = False
    """Whether candidates are timed on another device while these processes train."""
    leaves_core_of: str = ""
    """The GPU of this machine that times candidates while the others train: one CPU core is kept free for it."""
    timing_node: bool = False
    """Whether a node of the cluster does all the timing."""

    @property
    def gpu_share(self) -> float:
        """Share of a GPU that each training requests from Ray, which counts to four digits; rounded down."""
        return math.floor(10_000 / self.per_gpu) / 10_000 if self.device == "cuda" else 0.0

    def __str__(self) -> str:
        sharing = f", {self.per_gpu} on each GPU" if self.device == "cuda" and self.per_gpu > 1 else ""
        return f"{self.concurrent} at a time{sharing}, each with {counted(self.threads, 'thread')}"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A network that is about to become a trial."""

    name: str
    """Name shown to users, as `Trial.name`."""
    origin: Origin
    architecture: Architecture
    genotype: Genotype = field(default_factory=dict)
    """The answers that led to it; empty where there are none."""
    parent: str = ""
    """The published network that this candidate equals, scales or was pruned from."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """The run's folder, its study with an explicit target, its data, its workers and its console."""

    run: RunFolder
    study: Study
    dataset: Dataset
    workers: Workers
    console: Console

    @property
    def budgets(self) -> Budgets:
        """The latency budgets of the study. Of several, those that nothing can meet are left out."""
        return reachable(self.run, self.study)

    @property
    def target(self) -> Target:
        """The target on which candidates are timed; in full precision where the study names several precisions."""
        return Target.parse(self.study.target)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The target in each precision that a network may ship in, highest first whatever their order in the study."""
        return self.target.in_precisions(self.study.precisions)

    def ships_on(self, trial: Trial) -> Target:
        """The target in the precision in which a trial was fastest."""
        if not self.study.precisions or trial.latency is None:
            return self.target
        return replace(self.target, precision=Target.parse(trial.latency.target).precision)

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set."""
        return self.dataset.num_classes

    @property
    def quick(self) -> float:
        """Precision of a latency that only guides the next measurement: half of its 95 % interval, as a share of it.

        The study's `latency_within` times `QUICK`, but at most the default times `QUICK` and never finer than
        `latency_within` itself. A coarser one would save little: seconds pass before the first call of a measurement.
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
        """The trial of a candidate, with its sizes, as written to the run's folder.

        `failed` says why it has no latency. `budget` is the one that the candidate is made for, by default the largest.
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
    """How many unfinished trainings a new candidate may leave out of account.

    A candidate may be proposed before the trainings just before it have ended. Their number is a little larger than
    the number of trainings at a time, so that a fast training need not wait for a slow one, nor any training for the
    next candidate to be measured. A single training on the device that also times would gain nothing by that. The
    number is fixed when the run begins, and kept when it is resumed on another machine.
    """
    workers, concurrent = search.workers, search.workers.concurrent
    more = max(concurrent // 2, int(workers.timed_beside))
    threads = workers.threads if workers.device == "cpu" else 0
    ahead = search.run.hold_to_order(Order(ahead=concurrent + more - 1, threads=threads)).ahead
    if concurrent > ahead + 1:
        search.console.step(
            f"train   {ahead + 1} at a time, not {concurrent}: a resumed run keeps the number that it began with, so "
            "that its candidates depend on its seed alone"
        )
    return ahead
