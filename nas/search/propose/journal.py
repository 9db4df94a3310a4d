"""Writes an Optuna journal of a run's trials, which `optuna-dashboard RUN/optuna.journal` shows while the run goes on.

It is written for users and never read for decisions, which rely on the run's own files. When a run begins or is
resumed, the journal is compared with these files and completed, or rewritten where it is missing, damaged or
different. From then on each trial is appended when its training ends, with the states that the sampler sees: whole
trainings are complete; shorter ones are pruned, with their score at their share of a whole training
(`nas.surrogate.candidates.step_of`); candidates over the budget are pruned with a violated constraint; broken trainings
have failed.

A journal that cannot be written does not end a search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas.runs.folder import JOURNAL, RunFolder
from nas.runs.trial import Trial
from nas.search.propose.candidates import SpaceQuestions
from nas.search.propose.sampler import Outcome, parameters_of
from nas.storage.files import write_atomically
from nas.storage.scratch import scratch_folder
from nas.surrogate.candidates import step_of
from space import Space

if TYPE_CHECKING:
    from pathlib import Path

    import optuna
    from optuna.trial import FrozenTrial

STUDY = "search"
LOCK = ".lock"  # Optuna appends this to the name of a journal that is being written


class Journal:
    """The journal of one run, which this process owns."""

    def __init__(
        self, run: RunFolder, space: Space, outcome: Callable[[Trial], Outcome], log: Callable[[str], None]
    ) -> None:
        """`outcome` returns the result of a trial's training. `log` prints once that the journal cannot be written."""
        self._run = run
        self._file = run.root / JOURNAL
        self._space = space
        self._outcome = outcome
        self._log = log
        self._study: optuna.Study | None = None
        self._works = True

    def hold_to(self, trials: Iterable[Trial]) -> None:
        """Make the journal agree with the run's files on `trials`, those that are over; it holds no others."""
        self._write(lambda: self._hold_to(trials))

    def ended(self, trial: Trial) -> None:
        """Append a trial whose training ended, or that is not trained."""
        self._write(lambda: self._opened().add_trial(self._frozen(trial)))

    def _write(self, write: Callable[[], None]) -> None:
        """Call `write`; an error of Optuna or the disk does not end the search: a resumed run repairs the journal."""
        if not self._works:
            return
        try:
            write()
        except Exception as error:
            self._works = False
            reason = f"{type(error).__name__}: {error}"
            self._log(f"note    {self._file} is not written any more ({reason}); the run does not need it")

    def _hold_to(self, trials: Iterable[Trial]) -> None:
        proposed = [each for each in trials if each.origin != "pruned"]
        expected = {_identity(each): each for each in map(self._frozen, proposed)}
        if not (expected or self._file.exists()):
            return  # the file is made with its first trial
        known = self._known()
        if known is not None and known <= expected.keys():
            self._opened().add_trials(each for identity, each in expected.items() if identity not in known)
            return
        with scratch_folder() as scratch:
            file = scratch / JOURNAL
            _study_in(file).add_trials(expected.values())
            write_atomically(self._file, lambda temporary: temporary.write_bytes(file.read_bytes()))
        self._study = None  # it belongs to the file that was replaced

    def _known(self) -> set[tuple[Any, ...]] | None:
        """The entries of the journal; None where there is none, it cannot be read, or an entry occurs twice."""
        if not (self._file.is_file() and self._file.read_bytes().endswith(b"\n")):
            return None  # Optuna would read a truncated file, and append to half a line
        try:
            found = [_identity(each) for each in self._opened().get_trials(deepcopy=False)]
        except Exception:  # any error of Optuna means a damaged file, which is rewritten
            return None
        return set(found) if len(set(found)) == len(found) else None

    def _opened(self) -> optuna.Study:
        if self._study is None:
            # No other process writes here: an existing lock was left by a process that was killed.
            self._file.with_name(f"{JOURNAL}{LOCK}").unlink(missing_ok=True)
            self._study = _study_in(self._file)
        return self._study

    def _frozen(self, trial: Trial) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        outcome = self._outcome(replace(trial, disturbed=None))  # by its last latency, not the one that proposals know
        scored = outcome.miou is not None
        if scored and outcome.fidelity == 1:
            state = TrialState.COMPLETE
        elif scored or any(violation > 0 for violation in outcome.violations.values()):
            state = TrialState.PRUNED
        else:
            state = TrialState.FAIL
        point = trial.answers_in(self._space)
        answered = {} if point is None else parameters_of(SpaceQuestions(self._space, (1.0,), None), point)
        attributes = {
            "key": trial.architecture.key,
            "number": trial.number,
            "name": trial.name,
            "origin": trial.origin,
            "milliseconds": None if trial.latency is None else trial.latency.p50_milliseconds,
            "parameters": trial.parameters,
            "multiply_adds": trial.multiply_adds,
            "share_of_training": outcome.fidelity if scored else 0.0,
            "failed": trial.failed,
            "answers": dict(trial.genotype),
        }
        return create_trial(
            state=state,
            value=outcome.miou if state == TrialState.COMPLETE else None,
            params={name: value for name, (_, value) in answered.items()},
            distributions={name: distribution for name, (distribution, _) in answered.items()},
            intermediate_values={} if outcome.miou is None else {step_of(outcome.fidelity): outcome.miou},
            constraints=dict(outcome.violations),
            user_attrs=attributes,
        )


def _study_in(file: Path) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(file)
    # Optuna's other lock is a symbolic link; one left behind is never removed if the path is relative.
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    try:
        return optuna.load_study(storage=storage, study_name=STUDY)
    except KeyError:
        return optuna.create_study(storage=storage, study_name=STUDY, direction="maximize")


def _identity(trial: FrozenTrial) -> tuple[Any, ...]:
    """The identity of an entry: its trial, and how that ended."""
    values = sorted(trial.intermediate_values.items())
    constraints = sorted(trial.constraints.items())
    return (trial.user_attrs.get("key"), trial.state.name, trial.value, *values, *constraints)
