"""A run's folder: everything a search knows, in files that are replaced whole, so that it can be killed anywhere.

study.yaml                        the resolved question
data.yaml                         which data it was begun on (`nas.runs.data_seen`)
trials/KEY/trial.yaml             what was proposed and measured (`Trial`)
trials/KEY/{search,finish}/       progress.yaml (one `Epoch` each), checkpoint.pt, weights.safetensors
company/KEY/...                   the same for published networks at their own width
winner/                           architecture.yaml weights.safetensors model.onnx certificate.yaml
report.html report.yaml
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nas.runs.data_seen import data_root
from nas.runs.labelling import WEIGHTS
from nas.runs.trial import Phase, Progress, Trial, read_progress
from nas.storage.files import write_text
from nas.study import Study, load_study
from space import UserError, strict


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
        """Where the study is, without which a folder holds no run."""
        return self.root / "study.yaml"

    @property
    def winner(self) -> Path:
        """Where the finished network goes."""
        return self.root / "winner"

    def study(self) -> Study:
        """What the run was asked. Data that were moved together with the run are found again."""
        study = load_study(self.study_path)
        return replace(study, data=replace(study.data, root=data_root(self.root, study.data.root)))

    def write_study(self, study: Study) -> None:
        """Ask something else, or spell out what was left open."""
        write_text(self.study_path, study.to_yaml())

    def trial_path(self, trial: Trial) -> Path:
        """Where a trial's files are."""
        kind = "company" if trial.origin == "company" else "trials"
        return self.root / kind / trial.architecture.key

    def phase_path(self, trial: Trial, phase: Phase) -> Path:
        """Where a trial's training files of one phase are."""
        return self.trial_path(trial) / phase

    def write_trial(self, trial: Trial) -> None:
        """Record a candidate in its folder."""
        write_text(self.trial_path(trial) / "trial.yaml", strict.dump(trial))

    def trials(self) -> tuple[Trial, ...]:
        """Every candidate, in the order of proposal; published networks at their own width are not among them."""
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
