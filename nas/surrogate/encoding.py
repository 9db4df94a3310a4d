"""Genotypes as vectors: numbers from 0 to 1, words as one place each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from space.choices import Choice

Point = Mapping[str, Choice]
"""A genotype; answers that are not asked for are not there."""
DECADE = 8.0  # positive numbers that differ by more than this factor differ by ratios


def key(point: Point) -> tuple[tuple[str, Choice], ...]:
    """The same for the same answers, which are asked for in one order."""
    return tuple(point.items())


def encode(points: Sequence[Point]) -> NDArray[np.float64]:
    """One row a point; the columns depend on all points together, and say nothing of what is the same everywhere.

    A number is from 0 to 1 between the smallest and the largest one, by ratios where these are far apart. A word is as
    far from each other word as the smallest number from the largest one, and so is an answer from a missing one.
    """
    names = sorted({name for point in points for name in point})
    columns: list[NDArray[np.float64]] = []
    for name in names:
        answers = [point.get(name) for point in points]
        if {*map(type, answers)} <= {int, float, type(None)}:
            columns += _numbers(np.array(answers, np.float64))  # a missing one is NaN
        else:
            columns += _words([repr(answer) for answer in answers])
    return np.stack(columns, axis=1) if columns else np.zeros((len(points), 1))


def _numbers(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    missing = ~np.isfinite(values)
    low, high = values[~missing].min(initial=math.inf), values[~missing].max(initial=-math.inf)
    columns = []
    if low < high:
        if low > 0 and high / low > DECADE:
            values, low, high = np.log(np.where(missing, low, values)), math.log(low), math.log(high)
        columns.append(np.where(missing, 0.5, (values - low) / (high - low)))
    if missing.any() and not missing.all():
        columns.append(missing.astype(np.float64))
    return columns


def _words(answers: Sequence[str]) -> list[NDArray[np.float64]]:
    kinds = sorted(set(answers))
    if len(kinds) == 1:
        return []
    return [np.asarray([answer == kind for answer in answers]) * math.sqrt(0.5) for kind in kinds]
