"""Latencies on a target: measured, estimated, and used to improve the estimates."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np

from nas.errors import UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.careful import time_one
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine import lane
from nas.latency.meter import MeasuresOne
from nas.latency.protocol import QUICK, WITHIN
from nas.latency.record import Latency
from pruning.depth import removable_blocks, without_blocks
from pruning.surgery import Cutter
from space.architecture import Architecture
from space.channels import Widths
from space.graph import Graph

TAUGHT = 10  # cuts that are measured to improve the estimates
NARROWEST = 0.15  # smallest share of channels that they keep


class Judge:
    """Measures and estimates latencies on one target, and keeps what it learnt; can be used for several networks."""

    def __init__(
        self,
        meter: MeasuresOne,
        size: tuple[int, int],
        num_classes: int,
        *,
        table: LatencyTable | None = None,
        within: float = WITHIN,
    ) -> None:
        """`size`: height and width that `meter` times at. `within`: precision of its timings (see `Meter.measure`)."""
        self._meter = meter
        self._within = within
        self._estimates = Estimates(size, num_classes, table)
        self._latencies: dict[str, Latency] = {}

    def latency(self, architecture: Architecture, *, anew: bool = False) -> Latency:
        """The last measured latency of an architecture; with `anew`, or where there is none, a new one.

        Raises: as `time_one`.
        """
        if anew or architecture.key not in self._latencies:
            self._latencies[architecture.key] = time_one(self._meter, architecture, within=self._within)
        return self._latencies[architecture.key]

    def correct(self, architecture: Architecture, latency: Latency) -> None:
        """Replace the last latency of an architecture by one that was measured elsewhere."""
        self._latencies[architecture.key] = latency

    def estimate(self, graph: Graph, widths: Widths) -> float:
        """Milliseconds of a graph whose nodes have the given widths."""
        with lane.shared():  # thousands of estimates keep a core busy for a minute
            return self._estimates.graph(graph, widths)

    def learn(self, architecture: Architecture, budget: Budget) -> float:
        """Improve the estimates by a measured latency, and return it in milliseconds of the budget's statistic."""
        return self._learn(architecture, self.latency(architecture), budget)

    def learn_from_cuts(self, cutter: Cutter, budget: Budget, *, depth: bool) -> None:
        """Measure some cuts, less precisely than others, to learn how cuts change this network's latency."""
        for cut in some_cuts(cutter, TAUGHT, depth=depth):
            with contextlib.suppress(UnmeasuredError):  # the other cuts are enough
                self._learn(cut, time_one(self._meter, cut, within=QUICK * self._within), budget)

    def _learn(self, architecture: Architecture, latency: Latency, budget: Budget) -> float:
        milliseconds = latency.milliseconds(budget.statistic)
        self._estimates.learn(architecture, milliseconds, disturbed=bool(latency.flagged))
        return milliseconds


def some_cuts(cutter: Cutter, number: int, *, depth: bool) -> Iterator[Architecture]:
    """Random cuts of all sizes. `depth`: blocks are removed too, more of them in narrower cuts."""
    random = np.random.default_rng(0)
    possible = removable_blocks(cutter.architecture) if depth else ()
    for share in np.geomspace(1.0, NARROWEST, number):
        counts = {}
        for name, full in cutter.counts(cutter.everything).items():
            wanted = full * min(1.0, share * math.exp(random.uniform(-0.4, 0.4)))
            multiple = int(random.choice([1, 4, 16]))
            counts[name] = int(np.clip(round(wanted / multiple) * multiple, 1, full))
        blocks = [block for block in possible if random.random() > math.sqrt(share)]
        yield without_blocks(cutter.narrowed(counts), blocks)
