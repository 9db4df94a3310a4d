"""What a network takes on the undisturbed machine, from blocks of alternating calls: the quiet median.

Whatever disturbs a machine makes calls slower, never faster, and it does so for a while: a block of neighbouring calls
is mostly quiet or mostly not. The reference tells which: it computes more than it moves memory, and its quiet blocks
lie within a few per cent of each other. So a block is quiet when the reference's median is within 5 % of its best one,
and the quiet median of either network is the median of its calls in those blocks.

A candidate's own best block would be a matter of luck: small networks scatter by several per cent from one quiet block
to the next, and slow down twice as much as the reference on a machine that is not quiet. With each network's own best
blocks the ratio of eight networks scattered by up to 2.1 % from one 24 blocks to the next, with the reference's by up
to 0.5 % (`studies/latency`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]  # (blocks, calls) in milliseconds

ALIKE = 1.05  # medians of the reference, against its best block
RESAMPLES = 1000


def quiet_blocks(reference: Times) -> NDArray[np.bool_]:
    """Which blocks were undisturbed."""
    medians = np.median(reference, axis=1)
    alike: NDArray[np.bool_] = medians <= ALIKE * medians.min()
    return alike


def quiet_median(reference: Times) -> float:
    """The reference's median call in undisturbed blocks."""
    return float(np.median(reference[quiet_blocks(reference)]))


def quiet_ratio(candidate: Times, reference: Times) -> float:
    """Median call of the candidate over that of the reference, in undisturbed blocks."""
    quiet = quiet_blocks(reference)
    return float(np.median(candidate[quiet]) / np.median(reference[quiet]))


def interval(candidate: Times, reference: Times) -> tuple[float, float]:
    """95 % bootstrap interval of the quiet ratio: undisturbed blocks are drawn anew, then pairs of calls within them.

    The same numbers give the same interval.
    """
    quiet = quiet_blocks(reference)
    random = np.random.default_rng(0)
    blocks, calls = reference[quiet].shape
    drawn = (
        random.integers(blocks, size=(RESAMPLES, blocks, 1)),
        random.integers(calls, size=(RESAMPLES, blocks, calls)),
    )
    ratios = _medians(candidate[quiet][drawn]) / _medians(reference[quiet][drawn])
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def _medians(resamples: NDArray[np.float64]) -> NDArray[np.float64]:
    medians: NDArray[np.float64] = np.median(resamples.reshape(RESAMPLES, -1), axis=1)
    return medians
