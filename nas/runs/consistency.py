"""Consistency between the files of a run: each file may be valid by itself and still contradict another one.

A file may come from another run, or a study may have been edited by hand. Trainings would then fit neither.
"""

from __future__ import annotations

from nas.errors import DamagedError
from nas.runs.folder import TRIAL, RunFolder
from nas.study import Study


def require_consistent(run: RunFolder, study: Study) -> None:
    """Check the candidates of a run against its study and against each other.

    Raises: UserError when a file is damaged, DamagedError when two of them contradict each other.
    """
    epochs, company = study.recipe.epochs, {trial.name for trial in run.company()}
    for trial in run.trials():
        file = run.trial_path(trial) / TRIAL
        if trial.until(epochs) > epochs:
            raise DamagedError(
                f"{file}: rungs: expected no epoch after {epochs}, the last one of the recipe in {run.study_path}, got "
                f"{trial.until(epochs)}; restore the file that was changed"
            )
        if trial.origin == "pruned" and trial.parent not in company:
            raise DamagedError(
                f"{file}: parent: expected a network in {run.root / 'company'}, got {trial.parent!r}; restore the "
                "file that was changed"
            )
