"""Settings of pruning: the number of cuts, the importance, and how the epochs of fine-tuning are divided."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pruning import importances
from space.errors import UserError

TRIM_SHARE = 0.25  # share of the epochs for training again a network that had to be cut lower in the end


@dataclass(frozen=True, kw_only=True)
class PruningPlan:
    """Settings of pruning.

    Raises: UserError for less than one step, a negative number of epochs, or an unknown importance.
    """

    epochs: int
    """Epochs of fine-tuning over all cuts."""
    steps: int = 2
    """Number of cuts on the way to the budget. Channels are scored anew before each, and each is followed by its share
    of the epochs."""
    importance: str | None = None
    """The importance, of `pruning.importances`, that scores channels; None: Fisher with data, magnitude without."""
    depth: bool = True
    """Whether whole blocks may be removed, not only channels."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"steps: expected at least 1, got {self.steps}")
        if self.epochs < 0:
            raise UserError(f"epochs: expected 0 or more, got {self.epochs}")
        if self.importance is not None:
            importances.kind(self.importance)

    def epochs_after(self, step: int) -> int:
        """Epochs after a step (from 1): at least three quarters after the last, the rest divided among the others."""
        early = self.epochs // 4 // (self.steps - 1) if self.steps > 1 else 0
        return self.epochs - early * (self.steps - 1) if step == self.steps else early

    @property
    def epochs_of_trim(self) -> int:
        """Epochs after a further cut of a finished network that turned out to be over the budget."""
        return math.ceil(TRIM_SHARE * self.epochs)
