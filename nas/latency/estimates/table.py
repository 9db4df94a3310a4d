"""LatencyTable: prices of the work that layers do on one device. The estimate of a network is the sum over its layers.

A conventional look-up table has one row per layer shape (kind, channels, kernel, stride, dilation, groups, height,
width). Timing such a layer by itself says little: the same shape repeats only to within 10 %, and the sum of rows
misses what happens between layers (`studies/latency` has the numbers). So this table holds the price of each kind of
work that layers do (`nas.latency.estimates.work`), fitted to whole networks measured on the device. Steps of the
hardware are part of the work: channels come in blocks, and channel counts that do not divide by the block are slower.
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
    """Prices of work."""

    of_quantity: Mapping[str, float]
    """Price of each quantity of work, such as "conv 3x3 multiply_adds", per unit."""
    of_unit: Mapping[str, float]
    """Price per unit, such as "multiply_adds", of quantities that no measured network had."""

    def sum(self, amounts: Mapping[str, float]) -> float:
        """Price of some work."""
        return sum(amount * self.of(quantity) for quantity, amount in amounts.items())

    def of(self, quantity: str) -> float:
        """Price of a quantity, per unit."""
        known = self.of_quantity.get(quantity)
        return self.of_unit.get(unit(quantity), 0.0) if known is None else known


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Prices of work on one target at one input size. An estimate is not a measurement: `error` is its typical error.

    Raises: UserError when a price is negative, or the input size or the anchor is not positive.
    """

    target: str
    """The target, as text that `Target.parse` reads."""
    height: int
    width: int
    milliseconds: Mapping[str, float]
    """Price of each quantity of work (`Prices.of_quantity`)."""
    unit_milliseconds: Mapping[str, float]
    """Price per unit of quantities that no measured network had (`Prices.of_unit`)."""
    networks: int
    """Number of measured networks that the prices were fitted to."""
    seconds: float
    """Mean duration of measuring one of these networks."""
    error: float
    """Mean absolute error of estimates for networks left out of the fit, as a share of their latency."""
    environment: Mapping[str, str]
    """Device, versions and threads."""
    reference_milliseconds: float | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The anchor that all milliseconds here use; None in tables of earlier versions."""

    def __post_init__(self) -> None:
        for prices in (self.milliseconds, self.unit_milliseconds):
            for quantity, price in prices.items():
                if not price >= 0:
                    raise UserError(f"expected the price of {quantity!r} to be 0 or more, got {price}; calibrate again")
        if min(self.height, self.width) < 1:
            raise UserError(f"expected a height and a width of at least 1, got {self.height}x{self.width}")
        if self.reference_milliseconds is not None and not 0 < self.reference_milliseconds < math.inf:
            raise UserError(
                f"expected positive reference_milliseconds, got {self.reference_milliseconds}; calibrate again"
            )

    def by_anchor(self, reference_milliseconds: float) -> LatencyTable:
        """The same table for another anchor, with all prices in proportion; unchanged if the table's own anchor is not
        known.
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
        """Estimated milliseconds of `architecture` for one image, including upsampling and arg-max."""
        return self.prices.sum(work_of(architecture, (self.height, self.width), num_classes))

    @property
    def prices(self) -> Prices:
        """The prices in milliseconds."""
        return Prices(of_quantity=self.milliseconds, of_unit=self.unit_milliseconds)
