"""`Job`: one training that a search asks for."""

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
    """What tries a recipe."""

    place: int
    """Of the recipe among those of the run."""
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: a phase of a trial, or a short finish that tries a recipe on it."""

    trial: Trial
    phase: Phase
    variant: Variant = field(default_factory=Variant)
    """What a finish has otherwise than the study's recipe."""
    tries: Try | None = None
    """None: what comes of it stays."""
    teacher: Trial | None = None
    """Who teaches it, if anybody does."""

    def folder(self, run: RunFolder) -> Path:
        """Where its files are."""
        return (
            run.phase_path(self.trial, self.phase)
            if self.tries is None
            else tried_path(run, self.trial, self.tries.place)
        )

    def epochs(self, study: Study) -> int:
        """How many it has."""
        if self.phase == "search":
            return study.recipe.epochs
        return study.search.epochs_of(self.variant) if self.tries is None else self.tries.epochs


def recipe_of(study: Study, phase: Phase, variant: Variant, epochs: int) -> Recipe:
    """The recipe of a training: finishing has a fresh schedule of its own length."""
    return study.recipe if phase == "search" else replace(variant.of(study.recipe), epochs=epochs)
