"""What the files of a run say of each other: each can be read by itself and still contradict another one.

A file may be of another run, or a study changed by hand. What would be trained then belongs to neither.
"""

from __future__ import annotations

from nas.errors import DamagedError
from nas.runs.folder import TRIAL, RunFolder
from nas.study import Study


def require_consistent(run: RunFolder, study: Study) -> None:
    """Hold the candidates of a run to its study and to each other.

    Raises: UserError when a file is damaged, DamagedError when two of them contradict each other.
    """
    epochs, company = study.recipe.epochs, {trial.name for trial in run.company()}
    for trial in run.trials():
        file = run.trial_path(trial) / TRIAL
        if trial.until(epochs) > epochs:
            raise DamagedError(
                f"{file}: rungs: expected epochs up to {epochs}, which the recipe in {run.study_path} has, got "
                f"{trial.until(epochs)}; put back the file that was changed"
            )
        if trial.origin == "pruned" and trial.parent not in company:
            raise DamagedError(
                f"{file}: parent: expected a network in {run.root / 'company'}, got {trial.parent!r}; put back the "
                "file that was changed"
            )
