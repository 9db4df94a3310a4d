"""Solves for the width at which a network fills the budget, with estimates that the run's measurements correct."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, replace

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
from space.count import multiply_adds

NEAR_FROM = 5  # measured networks from which on the estimates of a latency table are near


@dataclass(frozen=True, kw_only=True)
class Solved:
    """A network at its solved width, or at a width that cannot be timed with the `reason`; and its measurements."""

    architecture: Architecture
    latency: Latency | None
    factor: float
    adjusted: bool
    reason: str
    measured: tuple[Measured, ...]
    estimates: Estimates


class Solver:
    """Solves for the widths that fill a search's budgets.

    The measurements made for a network correct later estimates only once `keep` is called for it.
    """

    def __init__(self, search: Search, meter: Measures, table: LatencyTable | None) -> None:
        self._search = search
        self._meter = meter
        self._statistic = search.budgets.largest.statistic
        self._allows = limits_of(search.study, search.num_classes)
        self._table = table
        self._multiply_adds = functools.partial(
            multiply_adds, size=search.study.data.size, num_classes=search.num_classes
        )
        self._estimates = Estimates(search.study.data.size, search.num_classes, table)
        self._seconds = 0.0  # time spent on timing since the last network was kept

    def solve(self, architecture: Architecture, budget: Budget) -> Solved:
        """The network at the width that fills a budget, confirmed; or over the budget at the narrowest width."""
        within = self._search.study.latency_within
        measured: list[Measured] = []
        refused: list[tuple[Architecture, str]] = []
        latencies: dict[Architecture, Latency] = {}
        estimates = self._estimates.copy()

        def note(scaled: Architecture, latency: Latency | UnmeasuredError, begun: float) -> Latency | None:
            seconds = time.monotonic() - begun
            self._seconds += seconds
            if isinstance(latency, UnmeasuredError):
                refused.append((scaled, str(latency)))
                return None
            milliseconds, disturbed = latency.milliseconds(self._statistic), bool(latency.flagged)
            estimates.learn(scaled, milliseconds, disturbed=disturbed)
            measured.append(
                Measured(architecture=scaled, milliseconds=milliseconds, disturbed=disturbed, seconds=round(seconds, 2))
            )
            latencies[scaled] = latency
            return latency

        def timed(within: float) -> Measure:
            def measure(scaled: Architecture) -> Latency | None:
                known = latencies.get(scaled)
                if known is not None and self._statistic == "p50" and known.is_as_sure_as(within):
                    return known  # on a quiet machine a quick measurement is often precise enough for a candidate
                begun = time.monotonic()
                try:
                    return note(scaled, time_one(self._meter, scaled, within=within), begun)
                except UnmeasuredError as error:
                    return note(scaled, error, begun)

            return measure

        def solved(scaled: Architecture, latency: Latency | None, filled: Filled | None, reason: str) -> Solved:
            return Solved(
                architecture=scaled,
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
                multiply_adds=self._multiply_adds,
                within=within,
                near=self._table is not None and estimates.measured >= NEAR_FROM,
            )
        except UnmeasuredError:
            first, reason = refused[0]
            return solved(first, None, None, f"cannot be timed: {reason}")
        return solved(filled.architecture, filled.latency, filled, "")

    def time_again(self, trial: Trial, budget: Budget) -> Trial | None:
        """A trial, judged by its budget, after one more measurement; its `disturbed` keeps the first one. None where
        the target cannot time it now.
        """
        assert trial.latency is not None, "it was timed"
        try:
            again = time_one(self._meter, trial.architecture, within=self._search.study.latency_within)
        except UnmeasuredError:
            return None
        latency = budget.likelier(trial.latency, again)
        first = trial.disturbed or trial.latency
        return replace(trial, latency=latency, feasible=budget.admits(latency), disturbed=first)

    def keep(self, solved: Solved) -> None:
        """Write down the measurements made for a network that becomes a candidate."""
        in_vain = max(0.0, self._seconds - sum(each.seconds or 0.0 for each in solved.measured))
        timed = Timed(statistic=self._statistic, measured=solved.measured, in_vain_seconds=round(in_vain, 1))
        self._search.run.write_timed(solved.architecture, timed)
        self._seconds = 0.0
        self._estimates = solved.estimates

    def learn_earlier(self, earlier: EarlierTrial) -> float:
        """Correct estimates by what an earlier run measured; returns the network's milliseconds, estimated where that
        run did not measure it.
        """
        if earlier.latency is None:
            return self._estimates.architecture(earlier.architecture)
        milliseconds = earlier.latency.milliseconds(self._statistic)
        self._estimates.learn(earlier.architecture, milliseconds, disturbed=bool(earlier.latency.flagged))
        return milliseconds

    def learn(self, trial: Trial) -> None:
        """Correct estimates by what was measured for a trial."""
        timed = self._search.run.timed(trial)
        if timed.measured and timed.statistic == self._statistic:
            for each in timed.measured:
                self._estimates.learn(each.architecture, each.milliseconds, disturbed=each.disturbed)
            return
        if trial.latency is None:
            return
        milliseconds = trial.latency.milliseconds(self._statistic)
        self._estimates.learn(trial.architecture, milliseconds, disturbed=bool(trial.latency.flagged))
