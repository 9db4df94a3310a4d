"""Changes the widths of single parts so that a network's estimated latency comes near a wanted one.

Where channels are padded, many combinations of widths have equal estimates, although some have half as many
multiply-adds again as others: these use the padding. Among networks of equal latency, those with more multiply-adds
tend to score better (`studies/search`).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence, Set
from typing import NamedTuple

import numpy as np

from nas.latency.estimates.work import BLOCK
from space import Architecture, ArchitectureError
from space.scale import notches, parts, with_part

LIKELIEST = 8  # combinations of wider and narrower parts whose latency is estimated as a whole
MOST_COMBINATIONS = 10**7  # combinations considered; ten parts would have thirty times as many
OVER = 3.0  # an estimate above the wanted one counts as many times as bad as one equally far below it
EQUAL = (0.99, 1.003)  # estimates within these shares of the wanted one count as equal to it

EstimateMilliseconds = Callable[[Architecture], float]  # without measuring
CountMultiplyAdds = Callable[[Architecture], int]


class _Change(NamedTuple):
    """A change of one part's width."""

    notches: int
    milliseconds: float
    """Estimated milliseconds that it adds."""
    multiply_adds: int
    """Multiply-adds that it adds."""


def adjusted(
    architecture: Architecture,
    estimate: EstimateMilliseconds,
    multiply_adds: CountMultiplyAdds,
    wanted: float,
    seen: Set[Architecture],
) -> Architecture:
    """The architecture with the widths of single parts changed so that its estimate comes near the `wanted`
    milliseconds, preferably from below; of several that do, the one with the most multiply-adds. Architectures in
    `seen` are left out.

    The change of each part alone is estimated first; sums of these select the few combinations worth an estimate.
    """
    changes = _smallest(_changes(architecture, estimate, multiply_adds))
    milliseconds, computed = np.full(1, estimate(architecture)), np.zeros(1)
    for found in changes:
        milliseconds = np.add.outer(milliseconds, [change.milliseconds for change in found]).ravel()
        computed = np.add.outer(computed, [change.multiply_adds for change in found]).ravel()
    low, high = EQUAL
    equal = np.flatnonzero((milliseconds >= low * wanted) & (milliseconds <= high * wanted))
    fullest = equal[np.argsort(-computed[equal], kind="stable")][:LIKELIEST]
    nearest = np.argsort(np.abs(milliseconds - wanted), kind="stable")[:LIKELIEST]
    best, least = architecture, (math.inf, 0)
    for number, index in enumerate((*fullest, *nearest)):
        if number >= len(fullest) and least[0] == 0:  # the nearest are for changes that add up to something else
            break
        places = np.unravel_index(index, [len(found) for found in changes])
        with contextlib.suppress(ArchitectureError):
            tried = architecture
            for part, (found, place) in enumerate(zip(changes, places, strict=True)):
                tried = with_part(tried, part, found[place].notches)
            if tried in seen:
                continue
            rank = distance(estimate(tried), wanted), -multiply_adds(tried)
            if rank < least:
                best, least = tried, rank
    return best


def distance(estimate: float, wanted: float) -> float:
    """The distance of an estimate from the wanted one, larger if it lies above; 0 where they count as `EQUAL`."""
    low, high = EQUAL
    if low * wanted <= estimate <= high * wanted:
        return 0.0
    return wanted - estimate if estimate < wanted else OVER * (estimate - wanted)


def _changes(
    architecture: Architecture, estimate: EstimateMilliseconds, multiply_adds: CountMultiplyAdds
) -> list[list[_Change]]:
    """The possible changes of each part while all others stay as they are."""
    milliseconds, computed = estimate(architecture), multiply_adds(architecture)
    found: list[list[_Change]] = []
    for part in range(parts(architecture)):
        found.append([])
        for count in notches(architecture, part, vector=BLOCK):
            with contextlib.suppress(ArchitectureError):  # the layers around forbid it
                other = with_part(architecture, part, count)
                found[-1].append(_Change(count, estimate(other) - milliseconds, multiply_adds(other) - computed))
    return found


def _smallest(changes: Sequence[Sequence[_Change]]) -> list[list[_Change]]:
    """The smallest changes of each part, as many as `MOST_COMBINATIONS` of them all permit."""
    most = max(map(len, changes))
    while math.prod(min(most, len(found)) for found in changes) > MOST_COMBINATIONS:
        most -= 1
    return [sorted(sorted(found, key=lambda change: abs(change.notches))[:most]) for found in changes]
