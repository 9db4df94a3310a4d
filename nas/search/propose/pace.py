"""How long trainings take: an epoch that is scored takes longer than one that is not."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.runs.trial import Epoch


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The finished epochs of a training and their duration. Waiting for timings does not count: nothing is timed while
    the best networks are finished.
    """

    epochs: int
    scored: int
    """Number of epochs that were scored."""
    seconds: float
    """Duration of all epochs."""
    scored_seconds: float
    """Duration of those that were scored."""

    @classmethod
    def of(cls, history: Sequence[Epoch]) -> Pace:
        """The pace of a training with these epochs."""
        taken = [(each, each.seconds * (1 - (each.waited_for_lane or 0.0))) for each in history]
        scored = [seconds for each, seconds in taken if each.scores is not None]
        return cls(
            epochs=len(taken),
            scored=len(scored),
            seconds=sum(seconds for _, seconds in taken),
            scored_seconds=sum(scored),
        )

    @property
    def scoring(self) -> float | None:
        """Duration of a scoring, in epochs without one; None unless there were epochs with and without."""
        others = self.epochs - self.scored
        if not (others and self.scored and self.seconds > self.scored_seconds):
            return None
        without = (self.seconds - self.scored_seconds) / others
        return max(0.0, self.scored_seconds / self.scored / without - 1)


def usual_scoring(paces: Iterable[Pace]) -> float:
    """Usual duration of a scoring, in epochs without one. 0 where that is unknown: epochs are then taken as they are,
    scored or not.
    """
    return statistics.median([each.scoring for each in paces if each.scoring is not None] or [0.0])
