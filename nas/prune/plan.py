"""How to prune: in how many cuts, by which importance, and how the epochs of fine-tuning are shared out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pruning import importances
from space.errors import UserError

TRIM_SHARE = 0.25  # of the epochs, after what is over the budget when it is finished was cut lower


@dataclass(frozen=True, kw_only=True)
class PruningPlan:
    """How to prune.

    Raises: UserError for less than one step, fewer than no epochs, or an importance that is not known.
    """

    epochs: int
    """Of fine-tuning, all cuts together."""
    steps: int = 2
    """Cuts on the way to the budget, each weighed anew and followed by its share of the epochs."""
    importance: str | None = None
    """Which of `pruning.importances` scores channels; None: Fisher with data, magnitude without."""
    depth: bool = True
    """Whether blocks may go, not only channels."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps: expected at least 1, got {self.steps}")
        if self.epochs < 0:
            raise UserError(f"epochs: expected 0 or more, got {self.epochs}")
        if self.importance is not None:
            importances.kind(self.importance)

    def epochs_after(self, step: int) -> int:
        """Epochs after a step, from 1: the last gets three quarters of them or more, the others share the rest."""
        early = self.epochs // 4 // (self.steps - 1) if self.steps > 1 else 0
        return self.epochs - early * (self.steps - 1) if step == self.steps else early

    @property
    def epochs_of_trim(self) -> int:
        """Epochs after a cut of what was over the budget when it was finished."""
        return math.ceil(TRIM_SHARE * self.epochs)
