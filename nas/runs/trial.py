"""A candidate of a search, and what its trainings wrote after every epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nas.errors import DamagedError
from nas.latency.budget import Budget
from nas.latency.record import Latency, Statistic
from nas.storage.files import write_text
from nas.storage.records import read_record
from nas.training.scores import Scores
from space import Architecture, Space, UserError, load, published, strict

PROGRESS = "progress.yaml"
NO_VERDICT = re.compile(r"its process died \d+ times")
"""What earlier versions wrote as the failure of a training whose disk was full, say: nothing about the candidate."""

Origin = Literal["seed", "random", "guided", "company", "pruned"]
Phase = Literal["search", "finish"]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A part of a candidate's training with a schedule of its own, at the end of which it pauses."""

    epochs: int
    """How many are behind it then, from its first."""
    number: int
    """In the order of proposal, in which candidates are counted together with those that go on."""
    budget_milliseconds: float
    """The budget of the run then."""
    guided: bool = True
    """Whether the sampler proposed that it goes on; for the first rung, the trial's origin says how it came."""
    in_vain: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of what the sampler proposed: `Trial.in_vain`."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"epochs: expected 1 or more, got {self.epochs}")
        _check_in_vain(self.in_vain)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate as it was proposed: an architecture, where it came from and what it measured."""

    number: int
    """In the order of proposal, from 1; a candidate that goes on to another rung is a proposal too."""
    name: str
    """For people: `erfnet x0.53`, `random 3`."""
    origin: Origin
    architecture: Architecture
    latency: Latency | None
    """None where the target cannot time it; `failed` says why."""
    feasible: bool
    """Whether it is inside the run's budget; of several, inside the one that it was made for."""
    budget_milliseconds: float
    """The budget that its width was solved for."""
    parameters: int
    multiply_adds: int
    """For one image of the study's size."""
    genotype: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """What the sampler answered before the width was solved."""
    parent: str = ""
    """The published network that it is a scaling of, or was cut from."""
    stopped: bool = False
    """Of earlier versions: its training ended early, as a weak one, in the middle of its schedule."""
    failed: str = ""
    """Why its training broke, or why it cannot be timed; or empty."""
    disturbed: Latency | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What a busy machine gave before `latency` was measured, when all was proposed."""
    rungs: tuple[Rung, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What it was trained to, one after the other, and is now; empty for one schedule of all epochs."""
    also_milliseconds: tuple[float, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Other budgets that the width which fills them came to be the same for: as large as networks may become."""
    in_vain: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of what the sampler proposed: how many draws since the step before led to what was known, or to nothing. None in
    runs of earlier versions."""

    def __post_init__(self) -> None:
        ends = [each.epochs for each in self.rungs]
        if ends != sorted(set(ends)):
            raise UserError(f"rungs: expected ascending epochs, got {ends}")
        if not self.budget_milliseconds > 0:
            raise UserError(f"budget_milliseconds: expected more than 0, got {self.budget_milliseconds}")
        for name in ("number", "parameters", "multiply_adds"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        _check_in_vain(self.in_vain)

    @property
    def goes_on_from_trained_form(self) -> bool:
        """Whether its longer training goes on from the weights before paths were folded, kept for that: what a
        pruned one was cut from ran as one convolution.
        """
        return self.architecture.is_reparameterized and self.origin != "pruned"

    @property
    def last_number(self) -> int:
        """Of the last proposal of it: that it goes on, or that it begins."""
        return self.rungs[-1].number if self.rungs else self.number

    def until(self, epochs: int) -> int:
        """The epoch after which its training in the search pauses or ends; `epochs` are those of the whole one."""
        return self.rungs[-1].epochs if self.rungs else epochs

    def paused_after(self, progress: Progress) -> bool:
        """Whether its training in the search, which came so far, is over for now but not at its end."""
        done = len(progress.history)
        return self.stopped or (bool(self.rungs) and done >= self.rungs[-1].epochs and not progress.done)

    def answers_in(self, space: Space) -> Mapping[str, str | int | float | bool] | None:
        """What it was answered, in a space that may be another by now; None where that does not hold it, or where it
        was answered nothing. A published network counts as what is close to it, if anything there is.
        """
        if not self.genotype:
            return None
        if self.origin == "seed":
            return space.closest_genotype(load(self.parent)) if self.parent in published() else None
        return space.point(self.genotype, self.architecture)

    def is_for(self, budget: Budget) -> bool:
        """Whether its width was solved for `budget`."""
        return budget.milliseconds in (self.budget_milliseconds, *self.also_milliseconds)

    def inside(self, budget: Budget) -> bool:
        """Whether it was timed, and within `budget`."""
        return self.latency is not None and budget.admits(self.latency)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One measurement on the way to a candidate."""

    architecture: Architecture
    milliseconds: float
    disturbed: bool
    """Whether the machine was."""
    seconds: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """That it took, from asking to the answer; None in runs of earlier versions."""

    def __post_init__(self) -> None:
        if not self.milliseconds > 0:
            raise UserError(f"milliseconds: expected more than 0, got {self.milliseconds}")
        _check_seconds("seconds", self.seconds)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Measurements in their order."""

    statistic: Statistic = "p50"
    """Which one of the latencies the milliseconds are."""
    measured: tuple[Measured, ...] = ()
    in_vain_seconds: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of timing what is none of these: draws before it that led to what was known, networks that cannot be timed. None
    in runs of earlier versions."""

    def __post_init__(self) -> None:
        _check_seconds("in_vain_seconds", self.in_vain_seconds)

    @property
    def seconds(self) -> float | None:
        """Of timing that the candidate cost in all; None in runs of earlier versions."""
        if self.in_vain_seconds is None:
            return None
        return self.in_vain_seconds + sum(each.seconds or 0.0 for each in self.measured)


def _check_seconds(name: str, seconds: float | None) -> None:
    if seconds is not None and not 0 <= seconds < math.inf:
        raise UserError(f"{name}: expected 0 or more, got {seconds}")


def _check_in_vain(count: int | None) -> None:
    if count is not None and count < 0:
        raise UserError(f"in_vain: expected 0 or more, got {count}")


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch of a trial."""

    epoch: int
    """From 1."""
    epochs: int
    """How many the phase has."""
    loss: float
    seconds: float
    scores: Scores
    waited_for_data: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The share of `seconds` (0..1) that passed waiting for batches; None where an earlier version trained."""
    waited_for_lane: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The same of waiting until somebody else's timing was over."""
    encoder: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether it trained the encoder alone, under a classifier of its own, which the scores are of."""

    def __post_init__(self) -> None:
        for name in ("waited_for_data", "waited_for_lane"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UserError(f"{name}: expected a share of 0 to 1, got {getattr(self, name)}")
        if not 1 <= self.epoch <= self.epochs:
            raise UserError(f"expected an epoch of 1 to {self.epochs}, got {self.epoch}")
        if self.seconds < 0:
            raise UserError(f"seconds: expected 0 or more, got {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """How much of a network began with the weights that others trained."""

    layers: int
    """How many of its layers took theirs."""
    of: int
    """How many it has."""
    unused: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """How many tensors of the file no layer took; 0 in runs of earlier versions too."""
    reason: str = ""
    """Why no further one did; or empty."""

    def __post_init__(self) -> None:
        if not 0 <= self.layers <= self.of:
            raise UserError(f"layers: expected 0 to {self.of}, got {self.layers}")
        if self.unused < 0:
            raise UserError(f"unused: expected 0 or more, got {self.unused}")

    def __str__(self) -> str:
        """`36 of 40 layers pretrained, 12 tensors of the file not used`, or that none is, and why."""
        if self.layers:
            unused = f", {self.unused} tensors of the file not used" if self.unused else ""
            return f"{self.layers} of {self.of} layers pretrained{unused}"
        return f"no layer pretrained: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The epochs of one phase of a trial."""

    history: tuple[Epoch, ...] = ()
    pretrained: Pretrained | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What it took of `init`; None where there was none, or an earlier version trained."""

    @property
    def miou(self) -> float | None:
        """mIoU (0..1) after the last epoch; None before the first."""
        return self.history[-1].scores.miou if self.history else None

    @property
    def done(self) -> bool:
        """Whether every epoch of the phase is there."""
        return bool(self.history) and self.history[-1].epoch == self.history[-1].epochs


def read_trial(file: Path) -> Trial:
    """The candidate recorded in a file. What earlier versions wrote of a training that broke for no reason of the
    candidate's is forgotten: it is trained again.

    Raises: UserError when it cannot be read; DamagedError when it is not UTF-8, or of another folder.
    """
    trial = read_record(file, "a trial of a search", Trial)
    if trial.architecture.key != file.parent.name:
        raise DamagedError(
            f"{file}: expected the architecture that its folder is named by, got {trial.architecture.key}; bring the "
            "file back that was there, or remove the folder"
        )
    return replace(trial, failed="") if NO_VERDICT.fullmatch(trial.failed) else trial


def read_progress(folder: Path) -> Progress:
    """The finished epochs recorded in a phase's folder; none where the record is damaged."""
    file = folder / PROGRESS
    if not file.is_file():
        return Progress()
    try:
        progress = read_record(file, "the epochs of a training", Progress)
    except UserError:
        return Progress()
    numbers = [each.epoch for each in progress.history]
    return progress if numbers == list(range(1, len(numbers) + 1)) else Progress()


def append_epoch(folder: Path, epoch: Epoch, pretrained: Pretrained | None = None) -> None:
    """Record a finished epoch, and forget any that a resumed training is doing again. `pretrained`: what the training
    took of `init`.
    """
    before = [each for each in read_progress(folder).history if each.epoch < epoch.epoch]
    write_text(folder / PROGRESS, strict.dump(Progress(history=(*before, epoch), pretrained=pretrained)))


def forget_epochs(folder: Path, after: int) -> None:
    """Forget the epochs after the given one: they are to be done again."""
    progress = read_progress(folder)
    if len(progress.history) > after:
        write_text(folder / PROGRESS, strict.dump(replace(progress, history=progress.history[:after])))
