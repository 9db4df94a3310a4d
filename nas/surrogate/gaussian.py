"""A Gaussian process over networks and fidelities that predicts the scores of whole trainings from whole and short
ones.

The covariance has a kernel for the similarity of networks (Matérn 5/2 with a length scale for each column) and a term
peculiar to each network. Fidelities share both to the extent that their scores are correlated, which is learned. Longer
trainings also add a term that is linear in the columns, since some choices pay only then. Each fidelity has its own
mean, with a wide prior, and short trainings have their own spread. After Kennedy and O'Hagan, "Predicting the output
from a complex computer code when fast approximations are available", 2000.

Length scales have a prior around 0.35 times the square root of the number of columns, as Hvarfner et al., "Vanilla
Bayesian Optimization Performs Great in High Dimensions", 2024, recommend. It is applied to each group of columns
separately, so that the few facts known about every network are not lost among a hundred answers. The most likely
parameters are found in a fixed number of steps, so that the same observations give the same model. A step takes time
cubic in the number of observations; where there are many, parameters are fitted to a few hundred of them, and all are
used for predictions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.floating[Any]]
Matrix = NDArray[np.floating[Any]]

STEPS = 30
MOST_FITTED = 400  # observations to which parameters are fitted, at most
RATE = 0.15
LENGTH = 0.35  # prior length scale, as a multiple of the square root of the number of columns in a group
LEVEL = 25.0  # prior variance of a fidelity's mean, in units of the scores' variance
# Prior means and standard deviations of the logarithms of all parameters other than length scales: variance shared by
# similar networks; variance peculiar to a network; noise variance; rates at which the shared and the peculiar part
# decorrelate from the shortest training to the whole one; spread of the shortest training's scores; variance of the
# linear term.
EXPECTED = np.log([1.0, 0.05, 0.02, 0.3, 1.0, 1.0, 0.1])
SURENESS = np.array([0.7, 1.0, 1.0, 1.0, 1.0, 0.5, 1.0])
LENGTH_SURENESS = 0.75


@dataclass(frozen=True, kw_only=True)
class Observations:
    """Observed trainings, one entry each."""

    points: Matrix
    """Vectors of the networks, one row per training."""
    groups: tuple[int, ...]
    """Number of columns of each group, in their order."""
    networks: NDArray[np.int64]
    """Numbers of the networks; trainings of the same network have the same number."""
    depths: Vector
    """Depths of the trainings: 0 for whole ones, down to -1 for the shortest."""
    scores: Vector
    """Centred and scaled scores."""


class Process:
    """The Gaussian process conditioned on observations."""

    def __init__(self, seen: Observations, parameters: Vector | None = None) -> None:
        """`parameters`: parameters of another model; None: fit them."""
        if parameters is None and (few := _few(seen)) is not seen:
            parameters = Process(few)._parameters
        self._seen = seen
        self._same = (seen.networks[:, None] == seen.networks[None]).astype(np.float64)
        self._apart = np.abs(seen.depths[:, None] - seen.depths[None])
        self._levels = LEVEL * (self._apart == 0)
        # Weight of the linear term: 0 for the shortest training, 1 for the whole one; 0 where all are whole.
        self._added = (1 + seen.depths) * bool((seen.depths < 0).any())
        self._linear = _slopes(seen.points, seen.points) * np.outer(self._added, self._added)
        self._parameters: Vector = self._fitted() if parameters is None else parameters
        covariance = self._covariance(self._parameters)[0]
        self._root = np.linalg.cholesky(covariance)
        self._weights = _solve(self._root, _solve(self._root, seen.scores), transposed=True)

    def predict(self, points: Matrix, networks: NDArray[np.int64]) -> tuple[Vector, Vector]:
        """Mean and standard deviation, without noise, of the scores of whole trainings of these networks."""
        seen = self._seen
        columns = points.shape[1]
        lengths = np.exp(self._parameters[:columns])
        alike, peculiar, _, loses, forgets, spread, linear = np.exp(self._parameters[columns:])
        linear *= bool((seen.depths < 0).any())
        kernel, _ = _matern(_squares(seen.points / lengths, points / lengths))
        same = seen.networks[:, None] == networks[None]
        depths = seen.depths[:, None]
        shared = alike * kernel * np.exp(loses * depths) + peculiar * same * np.exp(forgets * depths)
        added = linear * self._added[:, None] * _slopes(seen.points, points)
        covariance = shared * spread**-depths + added + LEVEL * (depths == 0)
        explained = _solve(self._root, covariance)
        own = linear * (_centred(points) ** 2).sum(axis=1)
        variance = alike + peculiar + own + LEVEL - (explained**2).sum(axis=0)
        return covariance.T @ self._weights, np.sqrt(np.maximum(variance, 1e-10))

    def believing(self, points: Matrix, networks: NDArray[np.int64], scores: Vector) -> Process:
        """The same model with added observations: whole trainings of these networks with these scores."""
        seen = self._seen
        more = Observations(
            points=np.concatenate([seen.points, points]),
            groups=seen.groups,
            networks=np.concatenate([seen.networks, networks]),
            depths=np.concatenate([seen.depths, np.zeros(len(points))]),
            scores=np.concatenate([seen.scores, scores]),
        )
        return Process(more, self._parameters)

    def _fitted(self) -> Vector:
        """The most likely parameters, by Adam."""
        seen = self._seen
        lengths = np.repeat(np.log(LENGTH * np.sqrt(seen.groups)), seen.groups)
        expected = np.concatenate([lengths, EXPECTED])
        sureness = np.concatenate([np.full(len(lengths), LENGTH_SURENESS), SURENESS])
        now, best, likeliest = expected, expected, -np.inf
        mean, square = np.zeros_like(now), np.zeros_like(now)
        for step in range(1, STEPS + 1):
            likelihood, gradient = self._likelihood(now)
            likelihood -= 0.5 * float((((now - expected) / sureness) ** 2).sum())
            if likelihood > likeliest:
                likeliest, best = likelihood, now
            gradient -= (now - expected) / sureness**2
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.95 * square + 0.05 * gradient**2
            now = now + RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.95**step)) + 1e-8)
        return best

    def _covariance(self, parameters: Vector) -> tuple[Matrix, Matrix, Matrix, Matrix]:
        """The covariance of all observations, its part shared by similar networks, its part peculiar to a network, and
        the factor for the gradient of the shared part along the length scales.
        """
        seen = self._seen
        columns = seen.points.shape[1]
        alike, peculiar, noise, loses, forgets, spread, linear = np.exp(parameters[columns:])
        scaled = seen.points / np.exp(parameters[:columns])
        kernel, slope = _matern(_squares(scaled, scaled))
        spreads = spread ** -(seen.depths[:, None] + seen.depths[None])
        weight = alike * np.exp(-loses * self._apart) * spreads
        shared = weight * kernel
        own = peculiar * self._same * np.exp(-forgets * self._apart) * spreads
        covariance = shared + own + linear * self._linear + self._levels + (noise + 1e-8) * np.eye(len(seen.scores))
        return covariance, shared, own, weight * slope

    def _likelihood(self, parameters: Vector) -> tuple[float, Vector]:
        """Logarithm of the marginal likelihood up to a constant, and its gradient."""
        seen = self._seen
        columns = seen.points.shape[1]
        covariance, shared, own, slope = self._covariance(parameters)
        root = np.linalg.cholesky(covariance)
        inverse = np.linalg.inv(covariance)
        weights = inverse @ seen.scores
        likelihood = -0.5 * float(seen.scores @ weights) - float(np.log(np.diag(root)).sum())
        pull = np.outer(weights, weights) - inverse
        scaled = seen.points / np.exp(parameters[:columns])
        steep = pull * slope
        lengths = steep.sum(axis=1) @ scaled**2 - (scaled * (steep @ scaled)).sum(axis=0)
        _, _, noise, loses, forgets, _, linear = np.exp(parameters[columns:])
        by_shared, by_own = pull * shared, pull * own
        depths = -(seen.depths[:, None] + seen.depths[None])
        others = 0.5 * np.array(
            [
                by_shared.sum(),
                by_own.sum(),
                noise * np.trace(pull),
                -loses * (by_shared * self._apart).sum(),
                -forgets * (by_own * self._apart).sum(),
                ((by_shared + by_own) * depths).sum(),
                linear * (pull * self._linear).sum(),
            ]
        )
        return likelihood, np.concatenate([lengths, others])


def _few(seen: Observations) -> Observations:
    """At most about `MOST_FITTED` observations: mostly of networks that were trained whole, and some of the others."""
    if len(seen.scores) <= MOST_FITTED:
        return seen
    whole = np.isin(seen.networks, seen.networks[seen.depths == 0])
    kept = _spread(seen.networks, whole, max(2 * MOST_FITTED // 3, MOST_FITTED - int((~whole).sum())))
    kept |= _spread(seen.networks, ~whole, max(0, MOST_FITTED - int(kept.sum())))
    return replace(
        seen,
        points=seen.points[kept],
        networks=seen.networks[kept],
        depths=seen.depths[kept],
        scores=seen.scores[kept],
    )


def _spread(networks: NDArray[np.int64], group: NDArray[np.bool_], most: int) -> NDArray[np.bool_]:
    """A mask of at most about `most` observations of a group: those of networks spread evenly over the order in which
    they were first seen.
    """
    found = np.unique(networks[group])  # numbered in that order
    count = min(len(found), len(found) * most // max(1, int(group.sum())))
    places = np.linspace(0, len(found) - 1, count).round().astype(np.int64)
    return group & np.isin(networks, found[places])


def _centred(points: Matrix) -> Matrix:
    """Columns centred and scaled to variance 1 if uniform (-1.7 to 1.7), with all columns together weighing as one."""
    centred: Matrix = (points - 0.5) * np.sqrt(12 / points.shape[1])
    return centred


def _slopes(left: Matrix, right: Matrix) -> Matrix:
    """The linear kernel."""
    products: Matrix = _centred(left) @ _centred(right).T
    return products


def _squares(left: Matrix, right: Matrix) -> Matrix:
    """Squared distances between rows."""
    apart = (left**2).sum(axis=1)[:, None] + (right**2).sum(axis=1)[None] - 2 * left @ right.T
    squares: Matrix = np.maximum(apart, 0.0)
    return squares


def _matern(squares: Matrix) -> tuple[Matrix, Matrix]:
    """Matérn 5/2 kernel, and its gradient along the logarithm of a length scale, divided by the squared distance."""
    distance = np.sqrt(5 * squares)
    falling = np.exp(-distance)
    return (1 + distance + distance**2 / 3) * falling, 5 / 3 * (1 + distance) * falling


def _solve(root: Matrix, right: Matrix, *, transposed: bool = False) -> Matrix:
    """Solve for x: `root` @ x = `right`, or with the transposed `root`, which is a covariance's Cholesky factor."""
    return np.linalg.solve(root.T if transposed else root, right)
