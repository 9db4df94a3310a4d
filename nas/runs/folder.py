"""A run's folder: all results of a search, in files that are replaced as a whole, so that it can be killed at any time.

study.yaml                        the study, with every default spelled out
data.yaml                         fingerprint of the data that it was begun on (`nas.runs.data_seen`)
sources.yaml                      the earlier runs that it takes over, written before study.yaml (`Sources`)
earlier.yaml                      the results taken over from them (`nas.runs.earlier`)
warm_start.yaml                   trainings on other data that its sampler begins with (`nas.runs.warm_start`)
init.yaml init.safetensors        the initial weights of its trainings, if any (`nas.runs.initial_weights`)
table.yaml                        the latency table that it began with, or that there was none (`nas.runs.table`)
unreached.yaml                    the budgets, of several, that were given up (`nas.runs.unreached`)
finish.yaml                       the recipes tried for the finish, or its length (`nas.runs.finish_recipe`)
terms.yaml                        the settings that make its candidates comparable, as it began (`nas.runs.terms`)
order.yaml                        how its candidates follow one another, as it began (`Order`)
spent.yaml                        the time spent on it (`nas.runs.spent`)
trials/KEY/trial.yaml             a candidate and its latency (`Trial`)
trials/KEY/timed.yaml             the timings on the way to its width, written before the trial (`Timed`)
trials/KEY/{search,finish}/       progress.yaml (one `Epoch` each), checkpoint.pt, weights.safetensors, and
                                  trained.safetensors where the trained form differs from the one that is deployed
trials/KEY/tried/0/               the same for each of several finish recipes, tried on the best finalist
company/KEY/...                   the same for published networks at their own width
.owner                            the process that works on it (`nas.storage.ownership`)
winner/                           architecture.yaml weights.safetensors model.onnx certificate.yaml
winners/10ms/                     the same for each of several budgets
report.html report.yaml           for people, like optuna.journal; can be rewritten from the other files at any time
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.latency.budget import Budget
from nas.runs.data_seen import FILE as DATA_SEEN
from nas.runs.data_seen import data_root
from nas.runs.initial_weights import RECORD, TENSORS
from nas.runs.labelling import TRAINED_WEIGHTS, WEIGHTS
from nas.runs.trial import Phase, Progress, Timed, Trial, read_progress, read_trial
from nas.storage.files import expanded, read_text, write_text
from nas.storage.records import find_record
from nas.study import Study, load_study
from nas.training.recipe import beside
from space import Architecture, UserError, strict

STUDY = "study.yaml"
WINNERS = "winners"
TRIALS = "trials"
TRIAL = "trial.yaml"
TIMED = "timed.yaml"
ORDER = "order.yaml"
EARLIER = "earlier.yaml"
SOURCES = "sources.yaml"
TABLE = "table.yaml"
UNREACHED = "unreached.yaml"
FINISH = "finish.yaml"
TERMS = "terms.yaml"
WARM_START = "warm_start.yaml"
SPENT = "spent.yaml"
COMPANY = "company"
WINNER = "winner"
PAGE = "report.html"
FIGURES = "report.yaml"
JOURNAL = "optuna.journal"
# Files that change when the run is asked another question.
QUESTION = (STUDY, UNREACHED, SPENT)
# Files that belong to one run, and must not be read by a later run in the same folder.
BEGUN_WITH = (ORDER, SOURCES, EARLIER, TABLE, UNREACHED, FINISH, TERMS, WARM_START, SPENT)
OF_A_RUN = (
    *(STUDY, *BEGUN_WITH, DATA_SEEN, RECORD, TENSORS),
    *(TRIALS, COMPANY, WINNER, WINNERS, PAGE, FIGURES, JOURNAL),
)
"""Everything that a run writes in its folder, apart from logs."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """The order in which the candidates of a run are proposed."""

    ahead: int
    """How many trainings may still be under way, with unknown results, when the next candidate is proposed."""
    threads: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """CPU threads of each training, on which the last bits of its results depend. 0 on GPUs and in runs of earlier
    versions: they depend on the machine."""

    def __post_init__(self) -> None:
        for name in ("ahead", "threads"):
            if getattr(self, name) < 0:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The earlier runs that a run takes over."""

    runs: tuple[str, ...]
    """Folders of the earlier runs, as absolute paths."""


def run_around(path: Path) -> Path | None:
    """The run's folder that contains a path, if any: the nearest folder above it with a study and trials."""
    above = path.resolve().parents
    return next((each for each in above if (each / STUDY).is_file() and (each / TRIALS).is_dir()), None)


class RunFolder:
    """Reads and writes the files of one run."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @classmethod
    def create(cls, root: Path, study: Study, *, earlier: Sequence[RunFolder] = ()) -> RunFolder:
        """A new run in a folder that has none of the files that a run writes; from then on such files are the run's.
        `earlier`: runs that it takes over (`nas.runs.earlier`), even after interruptions.

        Raises: UserError when the folder holds a run already, or another file that has the name of a run's file.
        """
        folder = cls(root)
        folder._require_new()
        folder.root.mkdir(parents=True, exist_ok=True)
        (folder.root / SOURCES).unlink(missing_ok=True)
        if earlier:
            sources = Sources(runs=tuple(str(each.root.resolve()) for each in earlier))
            write_text(folder.root / SOURCES, strict.dump(sources))
        (folder.root / TRIALS).mkdir(exist_ok=True)
        folder.write_study(study.begun())  # last, since this makes the folder a run
        return folder

    @classmethod
    def claim(cls, root: Path) -> RunFolder:
        """Create a new folder for a run: `root`, or the first of `root`-2, `root`-3, ... that does not exist."""
        root.parent.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = root if number == 1 else root.with_name(f"{root.name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return cls(folder)
        raise AssertionError("there is no last number")

    def withdraw(self) -> None:
        """Undo what `create` and the run did, so that the folder can be used again, unless there are results already.
        Killed on the way, it leaves a run without results, or only files that `create` replaces.
        """
        if self.trials() or self.company():
            return
        for kind in (TRIALS, COMPANY):
            for each in (self.root / kind).glob("*"):
                shutil.rmtree(each, ignore_errors=True)
        begun_with = (name for name in BEGUN_WITH if name != SOURCES)
        for name in (*begun_with, DATA_SEEN, RECORD, TENSORS, STUDY, SOURCES):
            (self.root / name).unlink(missing_ok=True)
        for kind in (TRIALS, COMPANY):
            with contextlib.suppress(OSError):
                (self.root / kind).rmdir()

    def _is_begun(self) -> bool:
        """Whether a search was begun in the folder. A study alone is not enough: the user may have written it."""
        return any((self.root / name).exists() for name in (TRIALS, *BEGUN_WITH))

    def _require_new(self) -> None:
        if self.study_path.exists() and self._is_begun():
            raise UserError(f"{self.root} holds a run already; go on with {self.resume}, or give another --out")
        if self.study_path.exists():
            raise UserError(
                f"--out: expected a folder without a study, got {self.root} with its {STUDY}; give runs/NAME, for "
                "example"
            )
        for name in OF_A_RUN:
            if os.path.lexists(self.root / name) and not self._is_left(name):
                raise UserError(
                    f"--out: expected a new folder, or one without files named like those of a run, got {self.root} "
                    f"with {name}, which would be lost; give another one"
                )

    def _is_left(self, name: str) -> bool:
        """Whether a file or folder was left by a run that was killed while it began or was withdrawn."""
        if name == TRIALS:
            return (self.root / name).is_dir() and not os.listdir(self.root / name)
        try:
            return name == SOURCES and bool(self.sources())
        except UserError:
            return False

    @classmethod
    def open(cls, root: Path) -> RunFolder:
        """An existing run's folder.

        Raises: UserError when there is no run in it.
        """
        folder = cls(root)
        if not folder.study_path.is_file():
            raise UserError(f"expected a run's folder with a study.yaml, got {root}; see `nas search --help`")
        if not folder._is_begun():
            raise UserError(
                f"expected a run's folder, got {root} with a study but no search; begin one with: nas search "
                f"{shlex.quote(str(folder.study_path))}"
            )
        return folder

    @property
    def resume(self) -> str:
        """The shell command that resumes the run."""
        return f"nas search --resume {shlex.quote(str(self.root))}"

    @property
    def study_path(self) -> Path:
        """The file of the study, without which a folder holds no run."""
        return self.root / STUDY

    @property
    def winner(self) -> Path:
        """The folder of the finished network of a run with one budget."""
        return self.root / WINNER

    def winners(self, study: Study) -> dict[Budget, Path]:
        """The folder of the finished network for each budget of a study, the smallest budget first."""
        if not study.budgets:
            return {study.asked.largest: self.winner}
        return {budget: self.root / WINNERS / budget.name for budget in study.asked}

    def study(self) -> Study:
        """The study of the run. Data that were moved together with the run are found again."""
        study = load_study(self.study_path)
        return replace(study, data=replace(study.data, root=data_root(self.root, study.data.root)))

    def write_study(self, study: Study) -> None:
        """Replace the study of the run. Relative paths in it count from the current folder."""
        study = replace(study, recipe=beside(study.recipe, Path()))
        root = study.data.root
        if root is not None and not expanded(root).is_absolute():
            study = replace(study, data=replace(study.data, root=str(Path(root).absolute())))
        write_text(self.study_path, study.to_yaml())

    def question(self) -> dict[str, str | None]:
        """The files that depend on the run's question: the text of each, or None where there is no such file.

        Raises: UserError when one cannot be read.
        """
        files = {name: self.root / name for name in QUESTION}
        return {name: read_text(file, "a run's file") if file.is_file() else None for name, file in files.items()}

    def put_back(self, question: Mapping[str, str | None]) -> None:
        """Restore the files that `question` returned before."""
        for name, text in question.items():
            if text is None:
                (self.root / name).unlink(missing_ok=True)
            else:
                write_text(self.root / name, text)

    def sources(self) -> tuple[str, ...]:
        """The folders of the earlier runs that it takes over.

        Raises: UserError when the file is damaged.
        """
        sources = find_record(self.root / SOURCES, "a list of the runs that a run takes over", Sources)
        return () if sources is None else sources.runs

    def order(self) -> Order | None:
        """The order that the run began with; None before."""
        return find_record(self.root / ORDER, "the order of the candidates of a run", Order)

    def hold_to_order(self, order: Order) -> Order:
        """The order that the run began with, or `order` where none is kept yet, which is then written."""
        kept = self.order()
        if kept is None:
            write_text(self.root / ORDER, strict.dump(order))
        return kept or order

    def trial_path(self, trial: Trial) -> Path:
        """The folder of a trial."""
        kind = COMPANY if trial.origin == "company" else TRIALS
        return self.root / kind / trial.architecture.key

    def phase_path(self, trial: Trial, phase: Phase) -> Path:
        """The folder of a trial's training in one phase."""
        return self.trial_path(trial) / phase

    def write_trial(self, trial: Trial) -> None:
        """Write a candidate's record into its folder."""
        write_text(self.trial_path(trial) / TRIAL, strict.dump(trial))

    def trials(self) -> tuple[Trial, ...]:
        """All candidates in the order of proposal, without published networks at their own width."""
        return self._read(TRIALS)

    def company(self) -> tuple[Trial, ...]:
        """The published networks at their own width."""
        return self._read(COMPANY)

    def read_trial(self, folder: Path) -> Trial:
        """The candidate recorded in a trial's folder."""
        return read_trial(folder / TRIAL)

    def _read(self, kind: str) -> tuple[Trial, ...]:
        found = [self.read_trial(file.parent) for file in (self.root / kind).glob(f"*/{TRIAL}")]
        return tuple(sorted(found, key=lambda trial: trial.number))

    def next_number(self) -> int:
        """The number of the next proposal."""
        return max((trial.last_number for trial in self.trials()), default=0) + 1

    def write_timed(self, architecture: Architecture, timed: Timed) -> None:
        """Record the timings on the way to an architecture's width. Its trial, written afterwards, makes them count."""
        write_text(self.root / TRIALS / architecture.key / TIMED, strict.dump(timed))

    def timed(self, trial: Trial) -> Timed:
        """The timings on the way to a trial's width, in their order; none in runs of earlier versions."""
        return find_record(self.trial_path(trial) / TIMED, "the timings of a trial", Timed) or Timed()

    def progress(self, trial: Trial, phase: Phase) -> Progress:
        """The finished epochs of a phase; none when it has not begun."""
        return read_progress(self.phase_path(trial, phase))

    def is_done(self, trial: Trial, phase: Phase) -> bool:
        """Whether every epoch of a phase is done and its weights, in every form that is still needed, are intact."""
        if not self.progress(trial, phase).done:
            return False
        from nas.training.weights import load_weights

        needed = {self.phase_path(trial, phase) / WEIGHTS}
        if phase == "search":
            needed.add(self.starting_weights_path(trial))
        try:
            for file in needed:
                load_weights(file)
        except UserError:
            return False
        return True

    def starting_weights_path(self, trial: Trial) -> Path:
        """The file of the weights that a trial's finish starts from."""
        name = TRAINED_WEIGHTS if trial.goes_on_from_trained_form else WEIGHTS
        return self.phase_path(trial, "search") / name

    def weights_path(self, trial: Trial) -> Path:
        """The file of the weights at the end of a trial's longest finished training."""
        return self.phase_path(trial, self._longest(trial)) / WEIGHTS

    def best_miou(self, trial: Trial) -> float | None:
        """mIoU at the end of a trial's longest finished training."""
        return self.progress(trial, self._longest(trial)).miou

    def _longest(self, trial: Trial) -> Phase:
        return "finish" if self.progress(trial, "finish").done else "search"
