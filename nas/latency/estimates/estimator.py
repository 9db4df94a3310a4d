"""Latency estimates from the device's table, corrected by measurements made since.

Without a table, prices are fitted to the measurements alone; before there are any, multiply-adds stand in.
"""

from __future__ import annotations

from collections.abc import Mapping

from nas.latency.estimates.prices import fit_prices
from nas.latency.estimates.table import LatencyTable, Prices
from nas.latency.estimates.work import layer_work, total, work_of
from space.architecture import Architecture
from space.channels import Widths
from space.count import graph_multiply_adds, multiply_adds
from space.graph import Graph

UNKNOWN_DEVICE = 1e8  # multiply-adds per millisecond, before any measurement


class Estimates:
    """Estimates for one target at input `size` (height, width). Only `learn` changes them."""

    def __init__(self, size: tuple[int, int], num_classes: int, table: LatencyTable | None = None) -> None:
        self._size = size
        self._num_classes = num_classes
        self._table = table
        self._works: dict[str, Mapping[str, float]] = {}
        self._measured: dict[str, tuple[float, bool]] = {}  # milliseconds, and whether the machine was disturbed
        self._prices: Prices | None = None if table is None else table.prices
        self._fresh = True

    def copy(self) -> Estimates:
        """Independent estimates with the same knowledge."""
        other = Estimates(self._size, self._num_classes, self._table)
        other._works, other._measured = dict(self._works), dict(self._measured)
        other._prices, other._fresh = self._prices, self._fresh
        return other

    @property
    def measured(self) -> int:
        """Number of architectures learned."""
        return len(self._measured)

    def learn(self, architecture: Architecture, milliseconds: float, *, disturbed: bool = False) -> None:
        """Learn the latency of an architecture, in place of an earlier one. A disturbed measurement counts less."""
        key = architecture.key
        if self._measured.get(key) == (milliseconds, disturbed):
            return
        if key not in self._works:
            self._works[key] = work_of(architecture, self._size, self._num_classes)
        self._measured[key] = milliseconds, disturbed
        self._fresh = False

    def architecture(self, architecture: Architecture) -> float:
        """Estimated milliseconds of an architecture."""
        prices = self._fitted()
        if prices is None:
            return multiply_adds(architecture, self._size, self._num_classes) / UNKNOWN_DEVICE
        return prices.sum(work_of(architecture, self._size, self._num_classes))

    def graph(self, graph: Graph, sizes: Widths) -> float:
        """Estimated milliseconds of a graph whose nodes have the given widths."""
        prices = self._fitted()
        if prices is None:
            return graph_multiply_adds(graph, sizes, self._size) / UNKNOWN_DEVICE
        return prices.sum(total(layer_work(graph, sizes, self._size)))

    def _fitted(self) -> Prices | None:
        if not self._fresh:
            known = None if self._table is None else self._table.prices
            milliseconds, flags = zip(*self._measured.values(), strict=True)
            disturbed = [place for place, flag in enumerate(flags) if flag]
            self._prices = fit_prices(list(self._works.values()), milliseconds, known, disturbed)
            self._fresh = True
        return self._prices
