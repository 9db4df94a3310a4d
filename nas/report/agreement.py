"""How well a cheap figure orders candidates as the figure it stands in for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

FEWEST_POINTS = 4


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement in order of a proxy with the truth over `points` candidates.

    `tau` is Kendall's, -1 (reversed) to 1 (the same order); None for fewer than `FEWEST_POINTS` candidates, or when
    one of the two is the same for all of them.
    """

    proxy: str
    truth: str
    points: int
    tau: float | None


def agreement(proxy: str, truth: str, pairs: Sequence[tuple[float, float]]) -> Agreement:
    """The agreement over (proxy, truth) values of the same candidates."""
    return Agreement(
        proxy=proxy, truth=truth, points=len(pairs), tau=kendall_tau(pairs) if len(pairs) >= FEWEST_POINTS else None
    )


def kendall_tau(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Kendall's tau-b of paired values: (concordant - discordant) / sqrt(untied in one * untied in the other).

    None when every pair is tied in one of the two. Kendall, "The treatment of ties in ranking problems", 1945.
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
