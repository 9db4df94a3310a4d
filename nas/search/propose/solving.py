"""The width at which a network fills the budget, found by estimates from what was measured so far in the run."""

from __future__ import annotations

import time
from dataclasses import dataclass

from nas.errors import UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.careful import time_one
from nas.latency.estimates.estimator import Estimates
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.runs.earlier import EarlierTrial
from nas.runs.trial import Measured, Timed, Trial
from nas.search.propose.fill import Filled, Measure, fill
from nas.search.propose.limits import limits_of
from nas.search.search import Search
from space.architecture import Architecture

NEAR_FROM = 5  # measured networks, from which on the estimates of a latency table are near


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A network with its width, or one of its widths and why none can be timed, and what was measured for it."""

    architecture: Architecture
    latency: Latency | None
    factor: float
    adjusted: bool
    reason: str
    measured: tuple[Measured, ...]
    estimates: Estimates


class Solver:
    """Solves widths for a search's budgets. What it measures on the way to a network it knows when that is `kept`."""

    def __init__(self, search: Search, meter: Measures, table: LatencyTable | None) -> None:
        self._search = search
        self._meter = meter
        self._statistic = search.budgets.largest.statistic
        self._allows = limits_of(search.study, search.num_classes)
        self._table = table
        self._estimates = Estimates(search.study.data.size, search.num_classes, table)
        self._seconds = 0.0  # of timing, since the last network was kept

    def solve(self, architecture: Architecture, budget: Budget) -> Solved:
        """The width of a network that fills a budget, confirmed; or the narrowest, over it."""
        within = self._search.study.latency_within
        measured: list[Measured] = []
        refused: list[tuple[Architecture, str]] = []
        latencies: dict[Architecture, Latency] = {}
        estimates = self._estimates.copy()

        def note(one: Architecture, latency: Latency | UnmeasuredError, begun: float) -> Latency | None:
            seconds = time.monotonic() - begun
            self._seconds += seconds
            if isinstance(latency, UnmeasuredError):
                refused.append((one, str(latency)))
                return None
            milliseconds, disturbed = latency.milliseconds(self._statistic), bool(latency.flagged)
            estimates.learn(one, milliseconds, disturbed=disturbed)
            measured.append(
                Measured(architecture=one, milliseconds=milliseconds, disturbed=disturbed, seconds=round(seconds, 2))
            )
            latencies[one] = latency
            return latency

        def timed(within: float) -> Measure:
            def measure(scaled: Architecture) -> Latency | None:
                known = latencies.get(scaled)
                if known is not None and self._statistic == "p50" and known.is_as_sure_as(within):
                    return known  # a quick measurement on a quiet machine is often as sure as a candidate's has to be
                begun = time.monotonic()
                try:
                    return note(scaled, time_one(self._meter, scaled, within=within), begun)
                except UnmeasuredError as error:
                    return note(scaled, error, begun)

            return measure

        def solved(one: Architecture, latency: Latency | None, filled: Filled | None, reason: str) -> Solved:
            return Solved(
                architecture=one,
                latency=latency,
                factor=1.0 if filled is None else filled.factor,
                adjusted=filled is not None and filled.adjusted,
                reason=reason,
                measured=tuple(measured),
                estimates=estimates,
            )

        try:
            filled = fill(
                architecture,
                budget,
                timed(self._search.quick),
                timed(within),
                estimates.architecture,
                self._allows,
                within=within,
                near=self._table is not None and estimates.measured >= NEAR_FROM,
            )
        except UnmeasuredError:
            one, reason = refused[0]
            return solved(one, None, None, f"cannot be timed: {reason}")
        return solved(filled.architecture, filled.latency, filled, "")

    def keep(self, solved: Solved) -> None:
        """The network becomes a candidate, and what was measured for it is written down."""
        in_vain = max(0.0, self._seconds - sum(each.seconds or 0.0 for each in solved.measured))
        timed = Timed(statistic=self._statistic, measured=solved.measured, in_vain_seconds=round(in_vain, 1))
        self._search.run.write_timed(solved.architecture, timed)
        self._seconds = 0.0
        self._estimates = solved.estimates

    def recall(self, earlier: EarlierTrial) -> float:
        """Take into account what an earlier run measured of a network; the milliseconds that it takes, as estimated
        where it did not.
        """
        if earlier.latency is None:
            return self._estimates.architecture(earlier.architecture)
        milliseconds = earlier.latency.milliseconds(self._statistic)
        self._estimates.learn(earlier.architecture, milliseconds, disturbed=bool(earlier.latency.flagged))
        return milliseconds

    def learn(self, trial: Trial) -> None:
        """Take into account what was measured for a trial."""
        timed = self._search.run.timed(trial)
        if timed.measured and timed.statistic == self._statistic:
            for each in timed.measured:
                self._estimates.learn(each.architecture, each.milliseconds, disturbed=each.disturbed)
            return
        if trial.latency is None:
            return
        milliseconds = trial.latency.milliseconds(self._statistic)
        self._estimates.learn(trial.architecture, milliseconds, disturbed=bool(trial.latency.flagged))
