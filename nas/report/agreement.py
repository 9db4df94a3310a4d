"""How well a cheap figure (a proxy) ranks candidates, compared with the figure that it stands in for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nas.surrogate.agreement import kendall_tau

FEWEST_POINTS = 4


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement between the order of `points` candidates by a proxy and their true order.

    `tau` is Kendall's tau, from -1 (reversed) to 1 (the same order); None for fewer than `FEWEST_POINTS` candidates, or
    when either figure is the same for all of them.
    """

    proxy: str
    truth: str
    points: int
    tau: float | None


def agreement(proxy: str, truth: str, pairs: Sequence[tuple[float, float]]) -> Agreement:
    """The agreement over pairs of (proxy, truth), one for each candidate."""
    return Agreement(
        proxy=proxy, truth=truth, points=len(pairs), tau=kendall_tau(pairs) if len(pairs) >= FEWEST_POINTS else None
    )
