"""A candidate of a search, and what its trainings wrote after every epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nas.latency.record import Latency
from nas.storage.files import write_text
from nas.training.scores import Scores
from space import Architecture, UserError, strict

Origin = Literal["seed", "random", "guided", "company", "pruned"]
Phase = Literal["search", "finish"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate as it was proposed: an architecture, where it came from and what it measured."""

    number: int
    """In the order of proposal, from 1."""
    name: str
    """For people: `erfnet x0.53`, `random 3`."""
    origin: Origin
    architecture: Architecture
    latency: Latency
    feasible: bool
    """Whether it is inside the run's budget."""
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
    """Its training ended early, as a weak one."""
    failed: str = ""
    """Why its training broke, or empty."""

    def __post_init__(self) -> None:
        if not self.budget_milliseconds > 0:
            raise UserError(f"budget_milliseconds: expected more than 0, got {self.budget_milliseconds}")
        for name in ("number", "parameters", "multiply_adds"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}")


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

    def __post_init__(self) -> None:
        if not 1 <= self.epoch <= self.epochs:
            raise UserError(f"expected an epoch of 1 to {self.epochs}, got {self.epoch}")
        if self.seconds < 0:
            raise UserError(f"seconds: expected 0 or more, got {self.seconds}")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The epochs of one phase of a trial."""

    history: tuple[Epoch, ...] = ()

    @property
    def miou(self) -> float | None:
        """mIoU (0..1) after the last epoch; None before the first."""
        return self.history[-1].scores.miou if self.history else None

    @property
    def done(self) -> bool:
        """Whether every epoch of the phase is there."""
        return bool(self.history) and self.history[-1].epoch == self.history[-1].epochs


def read_progress(folder: Path) -> Progress:
    """The finished epochs recorded in a phase's folder."""
    file = folder / "progress.yaml"
    if not file.is_file():
        return Progress()
    return strict.parse(file.read_text("utf-8"), Progress, str(file))


def append_epoch(folder: Path, epoch: Epoch) -> None:
    """Record a finished epoch, and forget any that a resumed training is doing again."""
    before = [each for each in read_progress(folder).history if each.epoch < epoch.epoch]
    write_text(folder / "progress.yaml", strict.dump(Progress(history=(*before, epoch))))
