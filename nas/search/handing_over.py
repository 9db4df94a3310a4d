"""Weights that one training of a candidate leaves, and that the next one goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.runs.beginning import kept_tensors
from nas.runs.folder import RunFolder
from nas.runs.labelling import TRAINED_WEIGHTS, WEIGHTS, Labelling, metadata
from nas.runs.trial import Phase, Trial
from nas.study import Study

if TYPE_CHECKING:
    from torch import Tensor

    from nas.training.trainer import Trainer
    from space import Architecture


def save_weights_of(trainer: Trainer, folder: Path, architecture: Architecture) -> None:
    """Write the weights that run, and those of the form that is trained where that is another. `architecture`: of the
    candidate, which may be trained with heads that it has not.
    """
    from nas.training.weights import save_weights

    words = metadata(architecture, Labelling.of(trainer.dataset))
    weights, trained = trainer.weights(), trainer.trained_weights()
    if trained.keys() != weights.keys():
        save_weights(folder / TRAINED_WEIGHTS, trained, words)
    save_weights(folder / WEIGHTS, weights, words)


def starting_weights(run: RunFolder, trial: Trial, phase: Phase) -> dict[str, Tensor] | None:
    """What a training of this phase goes on from; None where it begins anew.

    Raises: UserError when they cannot be read.
    """
    if phase == "search":
        return None
    from nas.training.weights import load_weights

    return load_weights(run.starting_weights_path(trial))


def pretrained_weights(run: RunFolder, study: Study, phase: Phase) -> dict[str, Tensor] | None:
    """What others trained, of which a training of this phase takes what fits; None where it goes on from ours.

    Raises: UserError when they cannot be read.
    """
    return kept_tensors(run.root) if phase == "search" and study.recipe.init is not None else None
