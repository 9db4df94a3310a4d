"""The quiet median: a network's latency on the undisturbed machine, from blocks of alternating calls.

Disturbances make calls slower, never faster, and last for a while: a block of neighbouring calls is either mostly quiet
or mostly disturbed. The reference shows which, because it is limited by computation rather than by memory, so that its
quiet blocks lie within a few per cent of each other. A block is therefore quiet when the reference's median in it is
within 5 % of the reference's best block, and the quiet median of either network is the median of its calls in quiet
blocks.

A candidate's own best block would be a matter of luck: small networks scatter by several per cent between quiet blocks,
and slow down twice as much as the reference on a machine that is not quiet. With each network's own best blocks, the
ratios of eight networks scattered by up to 2.1 % from one 24 blocks to the next; with the blocks chosen by the
reference, by up to 0.5 % (`studies/latency`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]  # (blocks, calls) in milliseconds

ALIKE = 1.05  # largest median of the reference in a quiet block, as a multiple of its best block
RESAMPLES = 1000


def quiet_blocks(reference: Times) -> NDArray[np.bool_]:
    """Which blocks (blocks) were undisturbed."""
    medians = np.median(reference, axis=1)
    alike: NDArray[np.bool_] = medians <= ALIKE * medians.min()
    return alike


def quiet_median(reference: Times) -> float:
    """Median call of the reference in undisturbed blocks, in milliseconds."""
    return float(np.median(reference[quiet_blocks(reference)]))


def quiet_ratio(candidate: Times, reference: Times) -> float:
    """Median call of the candidate over median call of the reference, in undisturbed blocks."""
    quiet = quiet_blocks(reference)
    return float(np.median(candidate[quiet]) / np.median(reference[quiet]))


def interval(candidate: Times, reference: Times) -> tuple[float, float]:
    """95 % bootstrap interval of the quiet ratio: undisturbed blocks are resampled, then pairs of calls within them.

    The same times always give the same interval.
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
