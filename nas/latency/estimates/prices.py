"""Prices of work from measured networks: a regression that knows what prices are like.

A network's latency is the sum of (amount x price) over some 150 quantities of work, and there are not many more
networks than that. Plain least squares would give some quantity a price of zero and another one ten times its own. So
prices are positive and distributed: the logarithm of a quantity's price lies around that of all quantities of its unit
(multiply-adds of a dilated convolution cost about what multiply-adds cost), within `SPREAD`; and a latency is known to
within `NOISE`, some of them worse. The most probable prices are found by Gauss and Newton's method with Levenberg and
Marquardt's damping; a quantity that was seen little stays near its unit's price.

Where prices are known already, from another time or from other networks, a few measurements only correct them: units
together by little, single quantities by less.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from nas.latency.estimates.table import Prices
from nas.latency.estimates.work import unit

Vector = NDArray[np.float64]

NOISE = 0.04  # of a latency, as a share of it: the model's own error included
DISTURBED_NOISE = 0.15  # of one that was taken on a disturbed machine
OUTLIER = 3.0  # times the noise, from which on an error counts less and less
SPREAD = 0.5  # of log prices around their unit's
WIDE_SPREAD = {"resized": 2.5, "moved": 2.5}  # ways to resize differ by factors of a hundred
UNIT_SPREAD = 3.0  # of a unit's log price around a first guess
KNOWN_SPREAD = 0.15  # of log prices around known ones
KNOWN_UNIT_SPREAD = 0.3
ROUNDS = 80
LONGEST_STEP = 2.0  # of a log price in one round
ENOUGH = 1e-5  # relative gain of a round, below which it is the last


def fit_prices(
    works: Sequence[Mapping[str, float]],
    latencies: Sequence[float],
    known: Prices | None = None,
    disturbed: Collection[int] = (),
) -> Prices:
    """The most probable prices, given the latencies of networks that did such work.

    Prices are in the unit of the latencies, as `known` ones have to be. `disturbed` are the indices of latencies that
    are less sure than others.
    """
    assert len(works) == len(latencies) > 0
    noise = np.full(len(latencies), NOISE)
    noise[list(disturbed)] = DISTURBED_NOISE
    quantities = sorted({quantity for work in works for quantity in work})
    units = sorted({unit(quantity) for quantity in quantities})
    amounts = np.array([[work.get(quantity, 0.0) for quantity in quantities] for work in works])
    problem = _Problem(
        amounts=amounts,
        log_latencies=np.log(np.asarray(latencies, dtype=np.float64)),
        noise=noise,
        unit_of=np.array([units.index(unit(quantity)) for quantity in quantities]),
        spread=np.array([WIDE_SPREAD.get(unit(quantity), SPREAD) for quantity in quantities]),
        apart=np.zeros(len(quantities)),
        unit_spread=np.full(len(units), UNIT_SPREAD),
    )
    if known is not None:
        problem.start_from(known, quantities, units)
    with threadpool_limits(1, "blas"):  # beside trainings, more threads would wait for each other, and they spin
        found = np.exp(_solve(problem))
    count = len(quantities)
    return Prices(
        of_quantity={quantity: float(price) for quantity, price in zip(quantities, found[:count], strict=True)},
        of_unit={name: float(price) for name, price in zip(units, found[count:], strict=True)},
    )


@dataclass(kw_only=True)
class _Problem:
    """Unknowns are the log prices of quantities, then those of units."""

    amounts: NDArray[np.float64]
    """(networks, quantities)."""
    log_latencies: Vector
    noise: Vector
    """Of each network's latency."""
    unit_of: NDArray[np.int64]
    """Index of each quantity's unit."""
    spread: Vector
    """Of each quantity's log price."""
    apart: Vector
    """Of each quantity: how far its log price is expected from its unit's."""
    unit_spread: Vector
    """Of each unit's log price."""

    def __post_init__(self) -> None:
        self.quantities = self.amounts.shape[1]
        self.units = int(self.unit_of.max()) + 1
        self.guess = np.zeros(self.units)
        for index in range(self.units):  # as if every unit made up an equal part of each latency
            part = self.amounts[:, self.unit_of == index].sum(axis=1)
            seen = part > 0
            self.guess[index] = np.median(self.log_latencies[seen] - np.log(part[seen])) - np.log(self.units)

    def start_from(self, known: Prices, quantities: Sequence[str], units: Sequence[str]) -> None:
        """Expect prices around known ones."""
        for index, name in enumerate(units):
            if known.of_unit.get(name, 0.0) > 0:
                self.guess[index] = np.log(known.of_unit[name])
                self.unit_spread[index] = KNOWN_UNIT_SPREAD
        for index, name in enumerate(quantities):
            if known.of_quantity.get(name, 0.0) > 0:
                self.apart[index] = np.log(known.of_quantity[name]) - self.guess[self.unit_of[index]]
                self.spread[index] = KNOWN_SPREAD

    def start(self) -> Vector:
        return np.concatenate([self.guess[self.unit_of] + self.apart, self.guess])

    def errors(self, unknowns: Vector) -> tuple[Vector, NDArray[np.float64]]:
        """Everything that should be 0, in units of its standard deviation, and its derivatives."""
        prices, unit_prices = unknowns[: self.quantities], unknowns[self.quantities :]
        parts = self.amounts * np.exp(prices)
        estimates = parts.sum(axis=1)
        error = (np.log(estimates) - self.log_latencies) / self.noise
        trust = (1 + (error / OUTLIER) ** 2) ** -0.25  # the root of a weight
        networks = len(error)
        slope = np.zeros((networks + self.quantities + self.units, len(unknowns)))
        slope[:networks, : self.quantities] = parts / estimates[:, None] * (trust / self.noise)[:, None]
        rows = np.arange(self.quantities)
        slope[networks + rows, rows] = 1 / self.spread
        slope[networks + rows, self.quantities + self.unit_of] = -1 / self.spread
        rows = np.arange(self.units)
        slope[networks + self.quantities + rows, self.quantities + rows] = 1 / self.unit_spread
        apart = (prices - unit_prices[self.unit_of] - self.apart) / self.spread
        return np.concatenate([error * trust, apart, (unit_prices - self.guess) / self.unit_spread]), slope


def _solve(problem: _Problem) -> Vector:
    unknowns, damping = problem.start(), 1e-2
    errors, slope = problem.errors(unknowns)
    cost = float(errors @ errors)
    for _ in range(ROUNDS):
        curvature, downhill = slope.T @ slope, -slope.T @ errors
        while True:
            step = np.linalg.solve(curvature + damping * np.diag(np.diag(curvature)), downhill)
            tried = unknowns + np.clip(step, -LONGEST_STEP, LONGEST_STEP)
            new_errors, new_slope = problem.errors(tried)
            new_cost = float(new_errors @ new_errors)
            if new_cost < cost:
                break
            damping *= 4
            if damping > 1e6:  # no step of any length leads further down
                return unknowns
        gain = 1 - new_cost / cost
        unknowns, errors, slope, cost = tried, new_errors, new_slope, new_cost
        damping = max(damping / 3, 1e-6)
        if gain < ENOUGH:
            break
    return unknowns
