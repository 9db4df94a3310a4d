"""Records of a search: its candidates, their timings, and the epochs of their trainings."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nas.errors import DamagedError
from nas.host.words import counted
from nas.latency.budget import Budget
from nas.latency.record import Latency, Statistic
from nas.storage.files import write_text
from nas.storage.records import read_record
from nas.training.scores import Scores
from space import Architecture, Space, UserError, load, published, strict

PROGRESS = "progress.yaml"
NO_VERDICT = re.compile(r"its process died \d+ times")
"""A failure as earlier versions recorded it even if the candidate was not the cause (a full disk, for example)."""

Origin = Literal["seed", "random", "guided", "company", "pruned"]
Phase = Literal["search", "finish"]


@dataclass(frozen=True, kw_only=True)
class Rung:
    """A part of a candidate's training with its own learning rate schedule, after which the training pauses."""

    epochs: int
    """Total epochs of the training at the end of the rung."""
    number: int
    """Number in the order of proposal, which counts new candidates and those that go on alike."""
    budget_milliseconds: float
    """The budget for which the rung was proposed."""
    guided: bool = True
    """Whether the sampler proposed to go on with the candidate; for the first rung, see the trial's origin."""
    in_vain: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Number of draws that the sampler discarded before it, as in `Trial.in_vain`."""

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"epochs: expected 1 or more, got {self.epochs}")
        _check_in_vain(self.in_vain)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A candidate as it was proposed: its architecture, its origin and its latency."""

    number: int
    """Number in the order of proposal, from 1; going on to another rung is a proposal too."""
    name: str
    """Name for people: `erfnet x0.53`, `random 3`."""
    origin: Origin
    architecture: Architecture
    latency: Latency | None
    """None where the target cannot time it; `failed` says why."""
    feasible: bool
    """Whether it is inside the run's budget or, of several, inside the one that it was made for."""
    budget_milliseconds: float
    """The budget that its width was solved for."""
    parameters: int
    multiply_adds: int
    """Multiply-adds for one image of the study's size."""
    genotype: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    """The sampler's choices, made before the width was solved."""
    parent: str = ""
    """The published network that it was scaled or pruned from."""
    stopped: bool = False
    """Whether an earlier version stopped its training as a weak one, in the middle of its schedule."""
    failed: str = ""
    """Why its training failed, or why it cannot be timed; otherwise empty."""
    disturbed: Latency | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The first latency, from a busy machine; `latency` was measured again after all proposals."""
    rungs: tuple[Rung, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The rungs of its training in their order, up to the current one; empty for one schedule over all epochs."""
    also_milliseconds: tuple[float, ...] = field(default=(), metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Other budgets for which the same width was found, because networks may not become larger."""
    in_vain: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Number of the sampler's draws since the step before that led to a known network, or to none. None in runs of
    earlier versions."""

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
        """Whether its finish starts from the weights before parallel paths were folded, which are kept for that. Pruned
        networks have no such weights: they were cut from the folded form.
        """
        return self.architecture.is_reparameterized and self.origin != "pruned"

    @property
    def last_number(self) -> int:
        """Number of its last proposal: its first, or the one to go on."""
        return self.rungs[-1].number if self.rungs else self.number

    def until(self, epochs: int) -> int:
        """The epoch after which its training in the search pauses or ends; `epochs` are those of a whole training."""
        return self.rungs[-1].epochs if self.rungs else epochs

    def paused_after(self, progress: Progress) -> bool:
        """Whether its training in the search, of this progress, has paused or was stopped before its last epoch."""
        done = len(progress.history)
        return self.stopped or (bool(self.rungs) and done >= self.rungs[-1].epochs and not progress.done)

    def answers_in(self, space: Space) -> Mapping[str, str | int | float | bool] | None:
        """Its genotype in a space, which may have changed since; None where the space does not contain it, or it has no
        genotype. For a published network, the genotype of the closest point, if one is close.
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
        """Whether it was timed and is within `budget`."""
        return self.latency is not None and budget.admits(self.latency)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A latency measured on the way to a candidate's width."""

    architecture: Architecture
    milliseconds: float
    disturbed: bool
    """Whether the machine was busy."""
    seconds: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Duration from the request to the result; None in runs of earlier versions."""

    def __post_init__(self) -> None:
        if not self.milliseconds > 0:
            raise UserError(f"milliseconds: expected more than 0, got {self.milliseconds}")
        _check_seconds("seconds", self.seconds)


@dataclass(frozen=True, kw_only=True)
class Timed:
    """The timings on the way to a candidate's width, in their order."""

    statistic: Statistic = "p50"
    """The statistic that all milliseconds are."""
    measured: tuple[Measured, ...] = ()
    in_vain_seconds: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Seconds of timing for other networks before it: draws that led to a known network, and networks that cannot be
    timed. None in runs of earlier versions."""

    def __post_init__(self) -> None:
        _check_seconds("in_vain_seconds", self.in_vain_seconds)

    @property
    def seconds(self) -> float | None:
        """All seconds of timing that the candidate cost; None in runs of earlier versions."""
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
    """A finished epoch of a trial."""

    epoch: int
    """Number of the epoch, from 1."""
    epochs: int
    """Number of epochs of the phase."""
    loss: float
    seconds: float
    scores: Scores | None
    """None for an epoch that was not scored; the last one of a phase always is."""
    waited_for_data: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Share of `seconds` (0..1) spent waiting for batches; None for epochs of earlier versions."""
    waited_for_lane: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Share of `seconds` (0..1) spent waiting while networks were timed; None for epochs of earlier versions."""
    encoder: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Whether only the encoder was trained, with a temporary classifier, whose scores these are."""

    def __post_init__(self) -> None:
        for name in ("waited_for_data", "waited_for_lane"):
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise UserError(f"{name}: expected a share of 0 to 1, got {getattr(self, name)}")
        if not 1 <= self.epoch <= self.epochs:
            raise UserError(f"expected an epoch from 1 to {self.epochs}, got {self.epoch}")
        if self.seconds < 0:
            raise UserError(f"seconds: expected 0 or more, got {self.seconds}")
        if self.scores is None and self.epoch == self.epochs:
            raise UserError(f"scores: expected those of epoch {self.epoch}, the last one, got none")

    @property
    def miou(self) -> float | None:
        """mIoU (0..1); None where it was not scored."""
        return None if self.scores is None else self.scores.miou


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """How much of a network began with pretrained weights."""

    layers: int
    """Number of layers with pretrained weights."""
    of: int
    """Number of layers in all."""
    unused: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Number of tensors of the file that no layer used; also 0 in runs of earlier versions."""
    reason: str = ""
    """Why the other layers have none; otherwise empty."""

    def __post_init__(self) -> None:
        if not 0 <= self.layers <= self.of:
            raise UserError(f"layers: expected 0 to {self.of}, got {self.layers}")
        if self.unused < 0:
            raise UserError(f"unused: expected 0 or more, got {self.unused}")

    def __str__(self) -> str:
        """`36 of 40 layers pretrained, 12 tensors of the file not used`, or why no layer is."""
        if self.layers:
            unused = f", {counted(self.unused, 'tensor')} of the file not used" if self.unused else ""
            return f"{self.layers} of {self.of} layers pretrained{unused}"
        return f"no layer pretrained: {self.reason}"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The progress of a trial in one phase: its finished epochs."""

    history: tuple[Epoch, ...] = ()
    pretrained: Pretrained | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The layers that began with weights from `init`; None without `init`, and in runs of earlier versions."""

    @property
    def miou(self) -> float | None:
        """mIoU (0..1) after the last epoch; None before the first, and where the last one was not scored."""
        return self.history[-1].miou if self.history else None

    @property
    def done(self) -> bool:
        """Whether every epoch of the phase is finished; there is an `miou` then."""
        return bool(self.history) and self.history[-1].epoch == self.history[-1].epochs


def read_trial(file: Path) -> Trial:
    """The candidate recorded in a file. Failures that earlier versions recorded although the candidate did not cause
    them are dropped, so that it is trained again.

    Raises: UserError when it cannot be read; DamagedError when it is not UTF-8, or belongs in another folder.
    """
    trial = read_record(file, "a trial of a search", Trial)
    if trial.architecture.key != file.parent.name:
        raise DamagedError(
            f"{file}: expected the architecture that its folder is named after, got {trial.architecture.key}; restore "
            "the original file, or remove the folder"
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
    """Record a finished epoch, and drop it and any later ones from an earlier attempt. `pretrained`: the layers of the
    training that began with weights from `init`.
    """
    before = [each for each in read_progress(folder).history if each.epoch < epoch.epoch]
    write_text(folder / PROGRESS, strict.dump(Progress(history=(*before, epoch), pretrained=pretrained)))


def forget_epochs(folder: Path, after: int) -> None:
    """Drop the epochs after the given one, which are to be trained again."""
    progress = read_progress(folder)
    if len(progress.history) > after:
        write_text(folder / PROGRESS, strict.dump(replace(progress, history=progress.history[:after])))
