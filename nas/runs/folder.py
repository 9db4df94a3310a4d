"""A run's folder: everything a search knows, in files that are replaced whole, so that it can be killed anywhere.

study.yaml                        the resolved question
trials/KEY/trial.yaml             what was proposed and measured (`Trial`)
trials/KEY/{search,finish}/       progress.yaml (one `Epoch` each), checkpoint.pt, weights.safetensors
company/KEY/...                   the same for published networks at their own width
winner/                           architecture.yaml weights.safetensors model.onnx certificate.yaml
report.html report.yaml
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from nas.latency.record import Latency
from nas.runs.trained import WEIGHTS
from nas.storage.files import write_text
from nas.study import Study, load_study
from nas.training.scores import Scores
from space import Architecture, UserError, strict

Origin = Literal["seed", "random", "guided", "company", "pruned"]
Phase = Literal["search", "finish"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One candidate as it was proposed: an architecture, where it came from and what it measured.

    `name` is for people (`erfnet x0.53`, `random 3`); `number` the order of proposal. `genotype` is what the sampler
    answered before the width was solved for `budget_milliseconds`. `parent`: the published network it is a scaling
    of, or was cut from. `stopped`: ended early as weak. `failed`: why its training broke, or empty.
    """

    number: int
    name: str
    origin: Origin
    architecture: Architecture
    latency: Latency
    feasible: bool
    budget_milliseconds: float
    parameters: int
    multiply_adds: int
    genotype: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    parent: str = ""
    stopped: bool = False
    failed: str = ""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One finished epoch of a trial."""

    epoch: int
    epochs: int
    loss: float
    seconds: float
    scores: Scores


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


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """What was measured of a finished artefact, under which protocol, against which budget.

    `latency` says what was timed (`scope`, input size, batch), on what (`environment`), how often and how surely;
    `protocol` how. `budget` and `passed` are None where nothing was asked for, scores where there was no data.
    Scores are fractions over the validation images. `onnx_*` compare model.onnx with PyTorch on `onnx_images` of them:
    the largest difference of logits, how much was allowed, and the share of pixels with the same label.
    """

    architecture: str  # its key
    certified: str  # date and time, UTC
    version: str  # of framebudget
    budget: str | None
    passed: bool | None
    latency: Latency
    precision: str
    protocol: str
    miou: float | None
    pixel_accuracy: float | None
    class_iou: Mapping[str, float | None]
    scored: str  # how the scores were computed
    data: str
    validation_images: int
    num_classes: int
    input_mean: tuple[float, float, float]  # images reach the network as (value - mean) / std, RGB values in 0..1
    input_std: tuple[float, float, float]
    parameters: int
    multiply_adds: int
    onnx_images: int
    onnx_max_abs_difference: float
    onnx_tolerance: float
    onnx_same_labels: float
    sha256: Mapping[str, str]  # of the files beside it


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @classmethod
    def create(cls, root: Path, study: Study) -> RunFolder:
        """A new run's folder.

        Raises: UserError when the folder holds a run already.
        """
        folder = cls(root)
        if folder.study_path.exists():
            raise UserError(f"{root} holds a run already; go on with --resume {root}, or give another --out")
        folder.write_study(study)
        return folder

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """An existing run's folder.

        Raises: UserError when there is no run in it.
        """
        folder = cls(root)
        if not folder.study_path.is_file():
            raise UserError(f"expected a run's folder with a study.yaml, got {root}; see `nas search --help`")
        return folder

    @property
    def study_path(self) -> Path:
        return self.root / "study.yaml"

    @property
    def winner(self) -> Path:
        return self.root / "winner"

    def study(self) -> Study:
        return load_study(self.study_path)

    def write_study(self, study: Study) -> None:
        write_text(self.study_path, study.to_yaml())

    def trial_path(self, trial: Trial) -> Path:
        """Where a trial's files are."""
        kind = "company" if trial.origin == "company" else "trials"
        return self.root / kind / trial.architecture.key

    def phase_path(self, trial: Trial, phase: Phase) -> Path:
        """Where a trial's training files of one phase are."""
        return self.trial_path(trial) / phase

    def write_trial(self, trial: Trial) -> None:
        write_text(self.trial_path(trial) / "trial.yaml", strict.dump(trial))

    def trials(self) -> tuple[Trial, ...]:
        """Every candidate, in the order of proposal; company is not among them."""
        return self._read("trials")

    def company(self) -> tuple[Trial, ...]:
        """The published networks at their own width."""
        return self._read("company")

    def read_trial(self, folder: Path) -> Trial:
        """The candidate recorded in a trial's folder."""
        file = folder / "trial.yaml"
        return strict.parse(file.read_text("utf-8"), Trial, str(file))

    def _read(self, kind: str) -> tuple[Trial, ...]:
        found = [self.read_trial(file.parent) for file in (self.root / kind).glob("*/trial.yaml")]
        return tuple(sorted(found, key=lambda trial: trial.number))

    def progress(self, trial: Trial, phase: Phase) -> Progress:
        """The finished epochs of a phase; none when it has not begun."""
        return read_progress(self.phase_path(trial, phase))

    def weights_path(self, trial: Trial) -> Path:
        """The weights at the end of the longest training a trial has had."""
        finish = self.phase_path(trial, "finish") / WEIGHTS
        return finish if finish.is_file() else self.phase_path(trial, "search") / WEIGHTS

    def best_miou(self, trial: Trial) -> float | None:
        """mIoU at the end of the longest training a trial has had."""
        finish = self.progress(trial, "finish").miou
        return self.progress(trial, "search").miou if finish is None else finish


def read_progress(folder: Path) -> Progress:
    """The finished epochs recorded in a phase's folder."""
    file = folder / "progress.yaml"
    if not file.is_file():
        return Progress()
    return strict.parse(file.read_text("utf-8"), Progress, str(file))


def append_epoch(folder: Path, epoch: Epoch) -> None:
    """Record a finished epoch, and forget any that a resumed training is doing again."""
    before = [each for each in read_progress(folder).history if each.epoch < epoch.epoch]
    write_text(folder / "progress.yaml", strict.dump(replace(Progress(), history=(*before, epoch))))
