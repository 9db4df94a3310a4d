"""The weights that one training of a candidate saves and the next one starts from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.runs.folder import RunFolder
from nas.runs.initial_weights import kept_tensors
from nas.runs.labelling import TRAINED_WEIGHTS, WEIGHTS, Labelling, metadata
from nas.runs.trial import Phase, Trial
from nas.study import Study

if TYPE_CHECKING:
    from torch import Tensor

    from nas.training.trainer import Trainer


def save_weights_of(trainer: Trainer, folder: Path, trial: Trial) -> None:
    """Write the weights of the deployed network, and those for a longer training to start from where these differ. The
    trainer's architecture may have auxiliary heads that the candidate's lacks.
    """
    from nas.training.weights import save_weights

    words = metadata(trial.architecture, Labelling.of(trainer.dataset))
    if trial.goes_on_from_trained_form:
        save_weights(folder / TRAINED_WEIGHTS, trainer.trained_weights(), words)
    save_weights(folder / WEIGHTS, trainer.weights(), words)


def starting_weights(run: RunFolder, trial: Trial, phase: Phase) -> dict[str, Tensor] | None:
    """The candidate's own weights that a training of this phase starts from; None in the search phase.

    Raises: UserError when they cannot be read.
    """
    if phase == "search":
        return None
    from nas.training.weights import load_weights

    return load_weights(run.starting_weights_path(trial))


def pretrained_weights(run: RunFolder, study: Study, phase: Phase) -> dict[str, Tensor] | None:
    """The study's pretrained weights, of which a training in the search phase takes those that fit; else None.

    Raises: UserError when they cannot be read.
    """
    return kept_tensors(run.root) if phase == "search" and study.recipe.init is not None else None
