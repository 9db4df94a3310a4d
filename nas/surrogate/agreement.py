"""Rank correlation between two scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of paired values: (concordant - discordant) / sqrt(untied in one * untied in the other).

    None when either of the two has only ties. Kendall, "The treatment of ties in ranking problems", 1945.
    """
    balance = untied_first = untied_second = 0
    for (first, second), (other_first, other_second) in combinations(pairs, 2):
        one, two = _sign(first - other_first), _sign(second - other_second)
        balance += one * two
        untied_first += one != 0
        untied_second += two != 0
    if not (untied_first and untied_second):
        return None
    return balance / math.sqrt(untied_first * untied_second)


def _sign(difference: float) -> int:
    return (difference > 0) - (difference < 0)
