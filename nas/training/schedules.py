"""The learning-rate schedules of a training, one after the other, and the epochs after which the network is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Schedules:
    """When each schedule of a training ends, and how often the network is scored."""

    ends: Sequence[int]
    """Ascending epochs at which a schedule ends; the last one is the end of the training. 0 is no schedule."""
    score_every: int | None
    """As in `Recipe`; None: after every epoch."""

    def around(self, epoch: int) -> tuple[int, int]:
        """The epochs after which the schedule of an epoch (from 1) begins and ends; the first one begins after 0."""
        begin = max((end for end in self.ends if end < epoch), default=0)
        return begin, min(end for end in self.ends if end >= epoch)

    def scores_after(self, epoch: int) -> bool:
        """Whether the network is scored after an epoch (from 1): always at the end of a schedule."""
        begin, end = self.around(epoch)
        return epoch == end or (epoch - begin) % (self.score_every or 1) == 0
