"""`Job`: one training of a search."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.runs.finish_recipe import tried_path
from nas.runs.folder import RunFolder
from nas.runs.trial import Phase, Trial
from nas.study import Study
from nas.training import Recipe, Variant


@dataclass(frozen=True, kw_only=True)
class Try:
    """A short training that tries a finish recipe."""

    place: int
    """Index of the recipe among those of the run."""
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: a phase of a trial, or a short finish that tries a recipe on it."""

    trial: Trial
    phase: Phase
    variant: Variant = field(default_factory=Variant)
    """Changes of the study's recipe that a finish applies."""
    tries: Try | None = None
    """The try of a finish recipe that this training is; None for a training whose weights are kept."""
    teacher: Trial | None = None
    """The network that teaches it, if there is one."""

    def folder(self, run: RunFolder) -> Path:
        """Where its files are."""
        return (
            run.phase_path(self.trial, self.phase)
            if self.tries is None
            else tried_path(run, self.trial, self.tries.place)
        )

    def epochs(self, study: Study) -> int:
        """Number of epochs of this training."""
        if self.phase == "search":
            return study.recipe.epochs
        return study.search.epochs_of(self.variant) if self.tries is None else self.tries.epochs


def recipe_of(study: Study, phase: Phase, variant: Variant, epochs: int) -> Recipe:
    """The recipe of a training; a finish has a new schedule of its own length. Unless the study says otherwise, a
    network is scored only where a schedule ends, since no other score decides anything.
    """
    recipe = study.recipe if phase == "search" else replace(variant.of(study.recipe), epochs=epochs)
    return replace(recipe, score_every=recipe.score_every or recipe.epochs)
