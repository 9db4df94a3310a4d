"""LatencyTable: estimates of what every layer takes on one device. A network takes the sum.

A row of a look-up table would be one layer's shape (kind, channels, kernel, stride, dilation, groups, height, width).
Timed by itself such a row says little: the same shape repeats to within 10 % only, and the sum of rows misses what
happens between layers (`studies/latency` has the numbers). So the table holds the price of each kind of work that
layers do (`nas.latency.estimates.work`), found from whole networks that were measured on the device, and a row is what
a layer's work costs. Steps of the hardware are in the work: channels come in blocks, and counts that do not divide are
slower.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nas.latency.estimates.work import unit, work_of
from space import strict
from space.errors import UserError

if TYPE_CHECKING:
    from space.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What work costs."""

    of_quantity: Mapping[str, float]
    """Price of one unit of each quantity of work, such as "conv 3x3 multiply_adds"."""
    of_unit: Mapping[str, float]
    """The same of quantities that no measured network had, by their unit, such as "multiply_adds"."""

    def sum(self, amounts: Mapping[str, float]) -> float:
        """What some work costs."""
        return sum(amount * self.of(quantity) for quantity, amount in amounts.items())

    def of(self, quantity: str) -> float:
        """What one unit of a quantity costs."""
        known = self.of_quantity.get(quantity)
        return self.of_unit.get(unit(quantity), 0.0) if known is None else known


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Prices of work on one target at one input size. An estimate is not a measurement: `error` says how far off.

    Raises: UserError when a price is negative, or the input size or the anchor is not positive.
    """

    target: str
    """Parses as a `Target`."""
    height: int
    width: int
    milliseconds: Mapping[str, float]
    """Price of one unit of each quantity of work (`Prices.of_quantity`)."""
    unit_milliseconds: Mapping[str, float]
    """The same of quantities that no measured network had, by their unit (`Prices.of_unit`)."""
    networks: int
    """How many networks were measured to find the prices."""
    seconds: float
    """That measuring one of them took."""
    error: float
    """Mean absolute error of estimates for networks left out of a fit, as a share of their latency."""
    environment: Mapping[str, str]
    """Device, versions, threads."""
    reference_milliseconds: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The anchor that all milliseconds here are by; None where an earlier version kept the table."""

    def __post_init__(self) -> None:
        for prices in (self.milliseconds, self.unit_milliseconds):
            for quantity, price in prices.items():
                if not price >= 0:
                    raise UserError(f"expected a price of {quantity!r} of 0 or more, got {price}; calibrate again")
        if min(self.height, self.width) < 1:
            raise UserError(f"expected a height and a width of at least 1, got {self.height}x{self.width}")
        if self.reference_milliseconds is not None and not 0 < self.reference_milliseconds < math.inf:
            raise UserError(
                f"expected positive reference_milliseconds, got {self.reference_milliseconds}; calibrate again"
            )

    def by_anchor(self, reference_milliseconds: float) -> LatencyTable:
        """The same table where the reference network takes so long, and everything else in proportion. As it is where
        its own anchor is not known.
        """
        if self.reference_milliseconds is None:
            return self
        factor = reference_milliseconds / self.reference_milliseconds
        return replace(
            self,
            milliseconds={quantity: factor * price for quantity, price in self.milliseconds.items()},
            unit_milliseconds={name: factor * price for name, price in self.unit_milliseconds.items()},
            reference_milliseconds=reference_milliseconds,
        )

    def estimate(self, architecture: Architecture, num_classes: int) -> float:
        """Milliseconds of `architecture` for one image, upsampling and arg-max included."""
        return self.prices.sum(work_of(architecture, (self.height, self.width), num_classes))

    @property
    def prices(self) -> Prices:
        """Its prices, in milliseconds."""
        return Prices(of_quantity=self.milliseconds, of_unit=self.unit_milliseconds)
