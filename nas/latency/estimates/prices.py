"""Prices of work, fitted to measured networks by a regression with prior knowledge about prices.

A network's latency is the sum of (amount x price) over some 150 quantities of work, and there are not many more
measured networks than that. Plain least squares would set the price of one quantity to zero and that of another to ten
times its true value. So prices are positive and have a prior distribution: the logarithm of a quantity's price lies
around that of all quantities of its unit (a multiply-add of a dilated convolution costs about as much as any
multiply-add), within `SPREAD`; and a latency is known to within `NOISE`, with some outliers. The most probable prices
are found by the Gauss-Newton method with Levenberg-Marquardt damping; a quantity that was rarely seen stays near the
price of its unit.

Where prices are already known, from another time or from other networks, a few measurements only correct them: units
together by a little, single quantities by less.
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

# Standard deviations:
NOISE = 0.04  # of a latency, as a share of it, including the error of the model
DISTURBED_NOISE = 0.15  # of a latency measured on a disturbed machine
SPREAD = 0.5  # of log prices around that of their unit
WIDE_SPREAD = {"resized": 2.5, "moved": 2.5}  # the same for units whose prices differ by factors of a hundred
UNIT_SPREAD = 3.0  # of a unit's log price around a first guess
KNOWN_SPREAD = 0.15  # of log prices around known ones
KNOWN_UNIT_SPREAD = 0.3  # of a unit's log price around a known one

OUTLIER = 3.0  # errors above this multiple of the noise count less and less
ROUNDS = 80  # most iterations
LONGEST_STEP = 2.0  # largest change of a log price in one iteration
ENOUGH = 1e-5  # relative gain of an iteration below which it is the last


def fit_prices(
    works: Sequence[Mapping[str, float]],
    latencies: Sequence[float],
    known: Prices | None = None,
    disturbed: Collection[int] = (),
) -> Prices:
    """The most probable prices, given the work and the latencies of some networks.

    Prices are in the unit of the latencies, and `known` ones have to be too. `disturbed`: indices of latencies that
    were measured on a disturbed machine.
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
    with threadpool_limits(1, "blas"):  # beside trainings, more threads would spin while they wait for each other
        found = np.exp(_solve(problem))
    count = len(quantities)
    return Prices(
        of_quantity={quantity: float(price) for quantity, price in zip(quantities, found[:count], strict=True)},
        of_unit={name: float(price) for name, price in zip(units, found[count:], strict=True)},
    )


@dataclass(kw_only=True)
class _Problem:
    """A regression whose unknowns are the log prices of all quantities, followed by those of all units."""

    amounts: NDArray[np.float64]
    """Work (networks, quantities)."""
    log_latencies: Vector
    """Logarithms of the latencies (networks)."""
    noise: Vector
    """Standard deviation of each network's log latency (networks)."""
    unit_of: NDArray[np.int64]
    """Index of each quantity's unit (quantities)."""
    spread: Vector
    """Standard deviation of each quantity's log price (quantities)."""
    apart: Vector
    """Expected difference between a quantity's log price and that of its unit (quantities)."""
    unit_spread: Vector
    """Standard deviation of each unit's log price (units)."""

    def __post_init__(self) -> None:
        self.quantities = self.amounts.shape[1]
        self.units = int(self.unit_of.max()) + 1
        self.guess = np.zeros(self.units)
        for index in range(self.units):  # as if each unit contributed equally to every latency
            part = self.amounts[:, self.unit_of == index].sum(axis=1)
            seen = part > 0
            self.guess[index] = np.median(self.log_latencies[seen] - np.log(part[seen])) - np.log(self.units)

    def start_from(self, known: Prices, quantities: Sequence[str], units: Sequence[str]) -> None:
        """Set the prior to prices around `known` ones."""
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
        """All errors, in units of their standard deviation, and their derivatives by the unknowns."""
        prices, unit_prices = unknowns[: self.quantities], unknowns[self.quantities :]
        parts = self.amounts * np.exp(prices)
        estimates = parts.sum(axis=1)
        error = (np.log(estimates) - self.log_latencies) / self.noise
        trust = (1 + (error / OUTLIER) ** 2) ** -0.25  # square root of the weight
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
            if damping > 1e6:  # no step of any length reduces the cost
                return unknowns
        gain = 1 - new_cost / cost
        unknowns, errors, slope, cost = tried, new_errors, new_slope, new_cost
        damping = max(damping / 3, 1e-6)
        if gain < ENOUGH:
            break
    return unknowns
