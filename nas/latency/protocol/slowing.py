"""A correction of the ratios of small networks, which slow down more than the reference on a busier machine.

A neighbour on the core's other hardware thread or in its caches slows every network by a different amount. When the
reference slows down by 1 %, networks of less than twice its latency slow down by 1.6 to 2.0 % from block to block and
by 1.3 to 2.0 % over minutes; large ones by 0.5 to 1.1 % (`studies/latency`, `quiet.csv` and `wandering.csv`). Without a
correction the ratio of a small network would therefore be up to 15 % off where the reference is within 15 % of its
anchor. Networks differ, so the correction is smaller than what most of them need, and the interval of a latency does
not include this difference. A slope fitted to a measurement's own blocks corrects no better than the constant one.
"""

from __future__ import annotations

import math

import numpy as np

from nas.latency.protocol.anchor import FAR_FROM_ANCHOR

SLOPE = 1.5  # per cent that a small network slows down by when the reference slows down by one
# Up to the first ratio a network slows down by that slope, from the second on it slows down as the reference does.
SMALL, LARGE = 1.5, 3.0


def correction(ratio: float, reference_milliseconds: float, anchor_milliseconds: float) -> float:
    """Factor that turns a ratio, measured while the reference took `reference_milliseconds`, into the anchored one."""
    small = np.clip(math.log(LARGE / ratio) / math.log(LARGE / SMALL), 0.0, 1.0)
    slower = np.clip(reference_milliseconds / anchor_milliseconds, 1 / FAR_FROM_ANCHOR, FAR_FROM_ANCHOR)
    return float(slower ** (small * (1 - SLOPE)))
