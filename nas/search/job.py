"""`Job`: one training that a search asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nas.runs.trial import Phase, Trial
from nas.study import Study
from nas.training import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training: a phase of a trial."""

    trial: Trial
    phase: Phase


def recipe_of(study: Study, phase: Phase) -> Recipe:
    """The recipe of a phase: finalists get a fresh schedule of their own length."""
    return study.recipe if phase == "search" else replace(study.recipe, epochs=study.search.finish_epochs)
