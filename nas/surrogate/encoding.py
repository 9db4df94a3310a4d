"""Genotypes as vectors: numbers scaled to 0..1, words one-hot encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from space.choices import Choice

Point = Mapping[str, Choice]
"""A genotype; answers to questions that were not asked are missing."""
DECADE = 8.0  # positive numbers that span more than this factor are scaled logarithmically


def key(point: Point) -> tuple[tuple[str, Choice], ...]:
    """A hashable key, equal for equal answers, since questions are always asked in the same order."""
    return tuple(point.items())


def encode(points: Sequence[Point]) -> NDArray[np.float64]:
    """A matrix with one row per point. Its columns depend on all points together; values that never differ have none.

    Numbers are scaled from 0 (the smallest) to 1 (the largest), logarithmically where these are far apart. Two
    different words are as far apart as the smallest and the largest number, and so are an answer and a missing one.
    """
    names = sorted({name for point in points for name in point})
    columns: list[NDArray[np.float64]] = []
    for name in names:
        answers = [point.get(name) for point in points]
        if {*map(type, answers)} <= {int, float, type(None)}:
            columns += _numbers(np.array(answers, np.float64))  # missing answers become NaN
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
