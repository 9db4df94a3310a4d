"""Which trainings are weak: successive halving against the candidates before them.

After Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020: at the epochs 1, 2, 4, ... times a
quarter of the schedule the weaker half stops. There a candidate is compared with whatever arrived before it. Here it is
compared with those whose training was over when its own began, so that neither speed nor interruptions decide.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

GRACE = 4  # the first comparison is after this part of the schedule


def is_weak(miou: float, epoch: int, epochs: int, earlier: Sequence[Sequence[float]]) -> bool:
    """Whether a training of `epochs` epochs with this mIoU after `epoch` of them is in the weaker half.

    `earlier`: the mIoU after each epoch of those to compare with; some may have stopped before.
    """
    if epoch >= epochs or epoch not in milestones(epochs):
        return False
    scores = [curve[epoch - 1] for curve in earlier if len(curve) >= epoch]
    return bool(scores) and miou < statistics.median(scores)


def passed(curve: Sequence[float], epochs: int) -> dict[float, float]:
    """The mIoU at each milestone before the last epoch of `curve`, by the share of the schedule that it is at."""
    return {epoch / epochs: curve[epoch - 1] for epoch in milestones(epochs) if epoch < len(curve)}


def milestones(epochs: int) -> tuple[int, ...]:
    """The epochs after which weak ones stop."""
    found = [max(1, epochs // GRACE)]
    while found[-1] * 2 < epochs:
        found.append(found[-1] * 2)
    return tuple(found)
