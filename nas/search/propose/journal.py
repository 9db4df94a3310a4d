"""An Optuna journal of a run's trials, which `optuna-dashboard RUN/optuna.journal` shows while the run goes on.

It is written for people and never read for decisions: the run's own files are the truth. When a run begins or goes on,
the journal is compared with them, completed, or written anew where it is missing, damaged or says something else. From
then on each trial is appended as its training ends, as the sampler is told of it: whole trainings are complete, what
ended before is pruned with its score at its share of a whole training (`nas.surrogate.candidates.step_of`), what is
over the budget is pruned with a violated constraint, and what broke has failed.

A journal that cannot be written is no reason to end a search.
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
LOCK = ".lock"  # what Optuna appends to the name of a journal that is being written


class Journal:
    """The journal of one run, whose owner is this process."""

    def __init__(
        self, run: RunFolder, space: Space, outcome: Callable[[Trial], Outcome], say: Callable[[str], None]
    ) -> None:
        """`outcome`: how a trial's training ended, or that there was none. `say` hears, once, that it cannot be
        written.
        """
        self._run = run
        self._file = run.root / JOURNAL
        self._space = space
        self._outcome = outcome
        self._say = say
        self._study: optuna.Study | None = None
        self._works = True

    def hold_to(self, trials: Iterable[Trial]) -> None:
        """Have the journal say what the run's files say of the trials that are over; others are not in it."""
        self._write(lambda: self._hold_to(trials))

    def ended(self, trial: Trial) -> None:
        """A trial's training ended, or it came to none."""
        self._write(lambda: self._opened().add_trial(self._frozen(trial)))

    def _write(self, write: Callable[[], None]) -> None:
        """Nothing that Optuna or a disk says of a journal is worth a search: the next one that goes on mends it."""
        if not self._works:
            return
        try:
            write()
        except Exception as error:
            self._works = False
            reason = f"{type(error).__name__}: {error}"
            self._say(f"note    {self._file} is not written any more ({reason}); the run does not need it")

    def _hold_to(self, trials: Iterable[Trial]) -> None:
        asked = [each for each in trials if each.origin != "pruned"]  # those are cut, not proposed
        expected = {_identity(each): each for each in map(self._frozen, asked)}
        if not (expected or self._file.exists()):
            return  # it is made with its first trial
        known = self._known()
        if known is not None and known <= expected.keys():
            self._opened().add_trials(each for identity, each in expected.items() if identity not in known)
            return
        with scratch_folder() as scratch:
            file = scratch / JOURNAL
            _study_in(file).add_trials(expected.values())
            write_atomically(self._file, lambda temporary: temporary.write_bytes(file.read_bytes()))
        self._study = None  # of the file that was there before

    def _known(self) -> set[tuple[Any, ...]] | None:
        """What the journal says; None where there is none, it cannot be read, or it says something twice."""
        if not (self._file.is_file() and self._file.read_bytes().endswith(b"\n")):
            return None  # Optuna reads what was cut short, and appends to half a line
        try:
            found = [_identity(each) for each in self._opened().get_trials(deepcopy=False)]
        except Exception:  # whatever Optuna makes of a damaged file: it is written anew
            return None
        return set(found) if len(set(found)) == len(found) else None

    def _opened(self) -> optuna.Study:
        if self._study is None:
            # Nobody else writes here: a lock that is there is that of a process which was killed.
            self._file.with_name(f"{JOURNAL}{LOCK}").unlink(missing_ok=True)
            self._study = _study_in(self._file)
        return self._study

    def _frozen(self, trial: Trial) -> FrozenTrial:
        from optuna.trial import TrialState, create_trial

        outcome = self._outcome(replace(trial, disturbed=None))  # what came of it, not what a proposal may know
        scored = outcome.miou is not None
        if scored and outcome.fidelity == 1:
            state = TrialState.COMPLETE
        elif scored or any(violation > 0 for violation in outcome.violations.values()):
            state = TrialState.PRUNED
        else:
            state = TrialState.FAIL
        point = trial.answers_in(self._space)
        asked = {} if point is None else parameters_of(SpaceQuestions(self._space, (1.0,), None), point)
        said = {
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
            params={name: value for name, (_, value) in asked.items()},
            distributions={name: distribution for name, (distribution, _) in asked.items()},
            intermediate_values={} if outcome.miou is None else {step_of(outcome.fidelity): outcome.miou},
            constraints=dict(outcome.violations),
            user_attrs=said,
        )


def _study_in(file: Path) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path = str(file)
    # Optuna's other lock is a link, which nobody removes where it was left behind and the path is a relative one.
    storage = JournalStorage(JournalFileBackend(path, lock_obj=JournalFileOpenLock(path)))
    try:
        return optuna.load_study(storage=storage, study_name=STUDY)
    except KeyError:
        return optuna.create_study(storage=storage, study_name=STUDY, direction="maximize")


def _identity(trial: FrozenTrial) -> tuple[Any, ...]:
    """What tells entries apart: of which trial, and how it ended."""
    said = trial.user_attrs
    values = sorted(trial.intermediate_values.items())
    return (said.get("key"), trial.state.name, trial.value, *values, *sorted(trial.constraints.items()))
