"""What a network takes on the undisturbed machine, from blocks of alternating calls: the quiet median.

Whatever disturbs a machine makes calls slower, never faster, and it does so for a while: a block of neighbouring calls
is mostly quiet or mostly not. So a network's quiet blocks are those whose median is within 3 % of its best block's, and
its quiet median is the median of all calls in them. The ratio of two networks is that of their quiet medians. They
alternate call by call, so that both meet the same machine, but their quiet blocks need not be the same ones.

This is not the median of all calls: on a virtual machine, or beside other work, that tells of the neighbours. Of 60
fresh measuring processes on a quiet virtual machine of two cores the 50 that were not flagged were within 1.4 % of the
median of their network; with medians of all pairs 4 of 60 were more than 5 % off without being flagged
(`studies/latency`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]  # (blocks, calls) in milliseconds

ALIKE = 1.03  # block medians, against the best
RESAMPLES = 1000


def quiet_blocks(times: Times) -> NDArray[np.bool_]:
    """Which blocks were undisturbed."""
    medians = np.median(times, axis=1)
    alike: NDArray[np.bool_] = medians <= ALIKE * medians.min()
    return alike


def quiet_median(times: Times) -> float:
    """The median call of the undisturbed blocks."""
    return float(np.median(times[quiet_blocks(times)]))


def quiet_ratio(candidate: Times, reference: Times) -> float:
    """Quiet median of one network over that of another."""
    return quiet_median(candidate) / quiet_median(reference)


def interval(candidate: Times, reference: Times) -> tuple[float, float]:
    """95 % bootstrap interval of the quiet ratio: blocks are drawn anew, then calls within them.

    The same numbers give the same interval.
    """
    random = np.random.default_rng(0)
    ratios = _resampled_medians(candidate, random) / _resampled_medians(reference, random)
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def _resampled_medians(times: Times, random: np.random.Generator) -> Times:
    kept = times[quiet_blocks(times)]
    blocks, calls = kept.shape
    drawn_blocks = random.integers(blocks, size=(RESAMPLES, blocks, 1))
    drawn_calls = random.integers(calls, size=(RESAMPLES, blocks, calls))
    medians: Times = np.median(kept[drawn_blocks, drawn_calls].reshape(RESAMPLES, -1), axis=1)
    return medians
