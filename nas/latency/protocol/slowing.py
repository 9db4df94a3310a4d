"""How much more a small network slows down than the reference on a busier machine, and a ratio without that.

A neighbour on the core's other hardware thread or in its caches slows every network by an amount of its own. Networks
of less than twice the reference's latency slow down by 1.6 to 2.0 % in blocks where the reference does by one, and by
1.3 to 2.0 % over minutes; large ones by 0.5 to 1.1 % (`studies/latency`, `quiet.csv` and `wandering.csv`). So within
15 % of the anchor the ratio of a small network is up to 15 % off. Networks differ, so less than most of them showed is
taken off, and the interval of a latency does not hold how they differ. By the slope of a measurement's own blocks
ratios scatter no less than by that.
"""

from __future__ import annotations

import math

import numpy as np

from nas.latency.protocol.anchor import FAR_FROM_ANCHOR

SLOPE = 1.5  # per cent that a small network slows down by, when the reference does by one
SMALL, LARGE = 1.5, 3.0  # ratios up to which that is so, and from which on networks slow down as the reference does


def correction(ratio: float, reference_milliseconds: float, anchor_milliseconds: float) -> float:
    """What to multiply a ratio to the reference by, which took so long then, for that on the machine as anchored."""
    small = np.clip(math.log(LARGE / ratio) / math.log(LARGE / SMALL), 0.0, 1.0)
    slower = np.clip(reference_milliseconds / anchor_milliseconds, 1 / FAR_FROM_ANCHOR, FAR_FROM_ANCHOR)
    return float(slower ** (small * (1 - SLOPE)))
