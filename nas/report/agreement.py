"""How well a cheap figure orders candidates as the figure it stands in for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.surrogate.agreement import kendall_tau

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
