"""The recipe by which a run finishes its networks: the recipes that were tried, on which network, and their scores.

It is written before the first recipe is tried and again after each, so that a resumed run tries what an uninterrupted
one would have. A run finishes all its networks by the same recipe, even if its question is changed later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from nas.runs.folder import FINISH, RunFolder
from nas.runs.trained import CHECKPOINT
from nas.runs.trial import Trial, read_progress
from nas.storage.files import write_text
from nas.storage.records import find_record
from nas.training import Variant
from space import UserError, strict

TRIED = "tried"


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A finish recipe and the result of trying it."""

    recipe: Variant
    epochs: int = 0
    """Epochs for which it is tried; 0: it is not tried, as when it is the only one."""
    teacher: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Key of the teacher network in this training, if there is one."""
    miou: float | None = None
    """mIoU (0..1) at the end of these epochs."""
    failed: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Why the training failed, or empty."""

    def __post_init__(self) -> None:
        if self.epochs < 0:
            raise UserError(f"epochs: expected 0 or more, got {self.epochs}")
        if not 0 <= (self.miou or 0) <= 1:
            raise UserError(f"miou: expected a share of 0 to 1, got {self.miou}")

    @property
    def over(self) -> bool:
        """Whether the result is known, or none is needed."""
        return not self.epochs or self.miou is not None or bool(self.failed)

    @property
    def outcome(self) -> str:
        """The score in percent, or why there is none, for people."""
        return self.failed or ("-" if self.miou is None else f"{100 * self.miou:.1f} %")


@dataclass(frozen=True, kw_only=True)
class FinishRecipe:
    """The finish recipes of a run, and the one that was chosen."""

    tried: tuple[Tried, ...]
    network: str = ""
    """Key of the architecture that they are tried on; empty where there is only one recipe."""
    chosen: int | None = None
    """Index of the chosen recipe, from 0; None before it is known."""
    epochs: int = field(default=0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Epochs of the finish where a time limit left fewer than the chosen recipe has; 0 where it did not."""
    teachers: Mapping[str, str] = field(default_factory=dict)
    """Keys of the networks that are finished with a larger teacher, and the keys of their teachers."""

    def __post_init__(self) -> None:
        if not self.tried:
            raise UserError("tried: expected at least one recipe, got none")
        if self.chosen is not None and not 0 <= self.chosen < len(self.tried):
            raise UserError(f"chosen: expected 0 to {len(self.tried) - 1}, got {self.chosen}")
        if self.epochs < 0:
            raise UserError(f"epochs: expected 0 or more, got {self.epochs}")

    @property
    def recipe(self) -> Variant:
        """The chosen changes to the study's recipe, with the epochs that were left for them; none before the choice."""
        chosen = Variant() if self.chosen is None else self.tried[self.chosen].recipe
        return replace(chosen, epochs=self.epochs) if self.epochs else chosen

    @property
    def is_plain(self) -> bool:
        """Whether nothing but the study's own recipe is used."""
        return all(each.recipe == Variant() for each in self.tried)

    @property
    def best(self) -> int:
        """Index of the recipe that scored best, the first of equals; 0 where all failed."""
        scores = [-1.0 if each.miou is None else each.miou for each in self.tried]
        return scores.index(max(scores))


def read_finish_recipe(run: RunFolder) -> FinishRecipe | None:
    """The finish recipes of a run; None where none are recorded yet, or only the study's own recipe is used and no time
    limit shortens it.

    Raises: UserError when the file is damaged.
    """
    return find_record(run.root / FINISH, "a record of the finish recipes of a run", FinishRecipe)


def finish_has_begun(run: RunFolder) -> bool:
    """Whether the finish of a network of the run is under way or over. Its first checkpoint is written before its
    first epoch counts.
    """
    folders = [run.phase_path(each, "finish") for each in (*run.trials(), *run.company())]
    return any((folder / CHECKPOINT).is_file() or read_progress(folder).history for folder in folders)


def write_finish_recipe(run: RunFolder, found: FinishRecipe) -> None:
    """Write the finish recipes into a run's folder."""
    write_text(run.root / FINISH, strict.dump(found))


def tried_path(run: RunFolder, trial: Trial, place: int) -> Path:
    """The folder of the training that tries the recipe at index `place` on a network."""
    return run.trial_path(trial) / TRIED / str(place)
