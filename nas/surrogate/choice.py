"""Choice of the candidate to train next, or to train further: the one with the highest expected improvement.

The index of a candidate is the expected improvement of its whole training over the best one so far, in logarithms
(Ament et al., "Unexpected Improvements to Expected Improvement for Bayesian Optimization", 2023), times the probability
that it is inside every budget and its training does not fail. Candidates that paused at a lower fidelity stay in the
choice: their index is less uncertain, and if it is the highest, their training goes on. Short trainings thus go where
they may change which network is trained to the end, and bad candidates are dropped without comparing them rung by rung.
`nas.surrogate.rungs` decides how soon a paused candidate has to go on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from nas.surrogate.encoding import Point, encode, key
from nas.surrogate.gaussian import Observations, Process, Vector
from nas.surrogate.told import Begun, Told
from space.choices import Choice

SHORTER = 4  # a training on other data counts as this many times shorter than the shortest one here
FEWEST = 2  # scores that are needed before the model predicts others


def choose(
    candidates: Sequence[Point],
    told: Sequence[Told],
    running: Sequence[Begun],
    facts: Callable[[Point], Mapping[str, float]] = lambda point: {},
) -> int:
    """The index of the best of `candidates`, given the results `told` in their order and the trainings under way.

    Candidates may include those that paused at a lower fidelity. `facts` gives numbers known before a training.
    """
    assert candidates, "there is nothing to choose from"
    points = [*(each.point for each in told), *(each.point for each in running), *candidates]
    numbers: dict[tuple[tuple[str, Choice], ...], int] = {}
    networks = np.array([numbers.setdefault(key(point), len(numbers)) for point in points])
    known = [facts(point) for point in points]
    groups = [encode(points), *([encode(known)] if any(known) else ())]
    return int(np.argmax(_Table(groups, networks, told, len(told) + len(running)).index()))


class _Table:
    """Vectors of the results, of the trainings under way and of the candidates, in this order, and their indices."""

    def __init__(
        self, groups: Sequence[NDArray[np.float64]], networks: NDArray[np.int64], told: Sequence[Told], first: int
    ) -> None:
        self._points = np.concatenate(groups, axis=1)
        self._groups = tuple(group.shape[1] for group in groups)
        self._networks = networks
        self._told = told
        self._first = first  # row of the first candidate
        self._scored = [
            place for place, each in enumerate(told) if each.score is not None and not (each.failed or each.over)
        ]

    def index(self) -> Vector:
        """Logarithm of each candidate's expected improvement times the probability that it is valid."""
        found: Vector = np.zeros(len(self._points) - self._first)
        if len(self._scored) >= FEWEST:
            found = self._improvement()
        for name in sorted({name for each in self._told for name in each.violations}):
            found = found + self._kept([each.violations.get(name) for each in self._told])
        return found + self._kept(
            [1.0 if each.failed else -1.0 if each.score is not None else None for each in self._told]
        )

    def _improvement(self) -> Vector:
        found = [self._told[place] for place in self._scored]
        fidelities, other = np.array([each.fidelity for each in found]), np.array([each.other_data for each in found])
        if other.any() and not other.all():
            fidelities[other] = fidelities[~other].min() / SHORTER
        highest = fidelities.max()  # where none was trained whole, the longest trainings count as whole
        logarithms = np.log(np.minimum(fidelities / highest, 1.0))
        depths = logarithms / max(-float(logarithms.min()), 1e-9)
        scores = np.array([each.score for each in found], np.float64)
        for kind in filter(np.any, (other, ~other)):  # each kind in its own standard deviations
            scores[kind] = _centred(scores[kind], depths[kind])
        whole = scores[depths == 0]
        observations = Observations(
            points=self._points[self._scored],
            groups=self._groups,
            networks=self._networks[self._scored],
            depths=depths,
            scores=scores,
        )
        mean, deviation = self._predicted(observations)
        return _log_improvement((mean - whole.max()) / deviation) + np.log(deviation)

    def _predicted(self, seen: Observations) -> tuple[Vector, Vector]:
        """Mean and deviation of the candidates, as if the trainings under way had ended with the expected scores."""
        process = Process(seen)
        running = slice(len(self._told), self._first)
        if running.start < running.stop:
            expected, _ = process.predict(self._points[running], self._networks[running])
            process = process.believing(self._points[running], self._networks[running], expected)
        return process.predict(self._points[self._first :], self._networks[self._first :])

    def _kept(self, violations: Sequence[float | None]) -> Vector:
        """Logarithm of the probability that a budget is kept; 0 where it was never exceeded."""
        places = [place for place, violation in enumerate(violations) if violation is not None]
        by_how_much = np.array([violations[place] for place in places], np.float64)
        count = len(self._points) - self._first
        if not (by_how_much > 0).any():
            return np.zeros(count)
        # The sign matters more than the amount: networks that fill a budget keep it only by a few per cent.
        scores = np.where(by_how_much > 0, 0.5, -0.5) + 0.5 * np.clip(by_how_much, -1, 1)
        level = scores.mean()
        process = Process(
            Observations(
                points=self._points[places],
                groups=self._groups,
                networks=self._networks[places],
                depths=np.zeros(len(places)),
                scores=scores - level,
            )
        )
        mean, deviation = process.predict(self._points[self._first :], self._networks[self._first :])
        return np.log(np.maximum(_below(-(mean + level) / deviation), 1e-12))


def _centred(scores: Vector, depths: Vector) -> Vector:
    """Scores relative to their fidelity's median, in standard deviations of the fidelity with most scores. Scores
    farther below the median than the best is above it are raised to that distance: the model should distinguish good
    networks.
    """
    kinds, counts = np.unique(depths, return_counts=True)
    spread, found = 0.0, scores.copy()
    for kind in kinds[np.argsort(counts, kind="stable")]:
        here = depths == kind
        values = scores[here] - np.median(scores[here])
        found[here] = np.maximum(values, -values.max()) if values.max() > 0 else values
        spread = float(found[here].std()) or spread
    return found / (spread or 1.0)


def _below(z: Vector) -> Vector:
    """The cumulative distribution function of the standard normal distribution."""
    return 0.5 * np.array([math.erfc(-each / math.sqrt(2)) for each in z])


def _log_improvement(z: Vector) -> Vector:
    """Logarithm of the expected improvement of a standard normal variable over -z."""
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    near = np.log(np.maximum(density + z * _below(z), 1e-300))
    far = np.minimum(z, -5.0)  # in this tail, rounding loses the difference above
    tail = -(far**2) / 2 - math.log(2 * math.pi) / 2 - np.log(far**2 + 3)
    return np.where(z > -5, near, tail)
