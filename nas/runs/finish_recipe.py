"""By which recipe the networks of a run are finished: what was tried, on which network, and what came of it.

It is kept before the first of them is tried and again whenever one has been, so that a run which goes on tries what one
that was not interrupted would have. All that a run finishes is finished alike, whatever it is asked for later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.runs.folder import FINISH, RunFolder
from nas.runs.trial import Trial
from nas.storage.files import write_text
from nas.storage.records import find_record
from nas.training import Variant
from space import UserError, strict

TRIED = "tried"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One recipe."""

    recipe: Variant
    epochs: int = 0
    """For how many it is tried; 0: not at all, as where there is no other."""
    teacher: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The key of the network that teaches there, if any."""
    miou: float | None = None
    """At the end of them, 0..1."""
    failed: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Why it came to no end."""

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise UserError(f"epochs: expected 0 or more, got {self.epochs}")
        if not 0 <= (self.miou or 0) <= 1:
            raise UserError(f"miou: expected a share of 0 to 1, got {self.miou}")

    @property
    def over(self) -> bool:
        """Whether what comes of it is known."""
        return not self.epochs or self.miou is not None or bool(self.failed)

    @property
    def outcome(self) -> str:
        """The score, or why there is none, for people."""
        return self.failed or ("-" if self.miou is None else f"{100 * self.miou:.1f} %")


@dataclass(frozen=True, kw_only=True)
class FinishRecipe:
    """The recipes of a run, and the one that it finishes by."""

    tried: tuple[Tried, ...]
    network: str = ""
    """The key of the architecture that they are tried on; empty where there is one alone."""
    chosen: int | None = None
    """The place of that one among them, from 0; None before it is known."""
    teachers: Mapping[str, str] = field(default_factory=dict)
    """Whom a larger network teaches to the end: the key of its architecture, and the teacher's."""

    def __post_init__(self) -> None:
        if not self.tried:
            raise UserError("tried: expected at least one recipe, got none")
        if self.chosen is not None and not 0 <= self.chosen < len(self.tried):
            raise UserError(f"chosen: expected 0 to {len(self.tried) - 1}, got {self.chosen}")

    @property
    def recipe(self) -> Variant:
        """What the study's recipe has otherwise, where that is known; nothing before."""
        return Variant() if self.chosen is None else self.tried[self.chosen].recipe

    @property
    def best(self) -> int:
        """The place of the one that scored best, the first of those; of the first where all of them failed."""
        scores = [-1.0 if each.miou is None else each.miou for each in self.tried]
        return scores.index(max(scores))


def read_finish_recipe(run: RunFolder) -> FinishRecipe | None:
    """What a run knows of it; None where nothing is kept yet, as in all that have no choice.

    Raises: UserError when the file is damaged.
    """
    return find_record(run.root / FINISH, "by which recipe a run finishes", FinishRecipe)


def write_finish_recipe(run: RunFolder, found: FinishRecipe) -> None:
    """Keep it."""
    write_text(run.root / FINISH, strict.dump(found))


def tried_path(run: RunFolder, trial: Trial, place: int) -> Path:
    """Where the training is that tries a recipe on a network."""
    return run.trial_path(trial) / TRIED / str(place)
