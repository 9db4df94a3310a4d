"""LatencyTable: what every layer takes on one device, estimated; a network takes the sum.

A row of a look-up table would be one layer's shape (kind, channels, kernel, stride, dilation, groups, height, width).
Timed by itself such a row says little: the same shape repeats to within 10 % only, and the sum of rows misses what
happens between layers (`studies/latency` has the numbers). So the table holds the price of each kind of work that
layers do (`space.work`), found from whole networks that were measured on the device, and a row is what a layer's work
costs. Steps of the hardware are in the work: channels come in blocks, and counts that do not divide are slower.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from space.channels import Widths, widths
from space.errors import UserError
from space.graph import Graph
from space.work import layer_work, total, unit

if TYPE_CHECKING:
    from space.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Prices of work on one target at one input size. An estimate is not a measurement: `error` says how far off.

    Raises: UserError when a price is negative, or the input size is not two positive lengths.
    """

    target: str  # parses as a Target
    height: int
    width: int
    milliseconds: Mapping[str, float]  # per unit of each quantity of work
    unit_milliseconds: Mapping[str, float]  # for quantities that no measured network had, by their unit
    networks: int  # measured, that the prices were found from
    seconds: float  # that measuring one of them took
    error: float  # mean absolute error of networks left out of it, as a share of their latency
    environment: Mapping[str, str]  # device, versions, threads

    def __post_init__(self) -> None:
        for prices in (self.milliseconds, self.unit_milliseconds):
            for quantity, price in prices.items():
                if not price >= 0:
                    raise UserError(f"expected a price of {quantity!r} of 0 or more, got {price}; calibrate again")
        if min(self.height, self.width) < 1:
            raise UserError(f"expected a height and a width of at least 1, got {self.height}x{self.width}")

    def estimate(self, architecture: Architecture, num_classes: int) -> float:
        """Milliseconds of `architecture` for one image, upsampling and arg-max included."""
        graph = architecture.graph(num_classes)
        return self.estimate_graph(graph, widths(graph, architecture.channels))

    def estimate_graph(self, graph: Graph, sizes: Widths) -> float:
        """Milliseconds of a graph whose nodes have the given widths."""
        return self.price(total(layer_work(graph, sizes, (self.height, self.width))))

    def layer_milliseconds(self, graph: Graph, sizes: Widths) -> tuple[float, ...]:
        """Milliseconds of each node of the graph; what is folded into another layer takes none of its own."""
        found = [0.0] * len(graph.nodes)
        for layer in layer_work(graph, sizes, (self.height, self.width)):
            found[layer.index] = self.price(layer.amounts)
        return tuple(found)

    def price(self, amounts: Mapping[str, float]) -> float:
        """Milliseconds of some work."""
        return sum(amount * self._price_of(quantity) for quantity, amount in amounts.items())

    def _price_of(self, quantity: str) -> float:
        known = self.milliseconds.get(quantity)
        return self.unit_milliseconds.get(unit(quantity), 0.0) if known is None else known
