"""Timing for a search: a meter that also gives the latency table kept for its device, if there is one.

On a cluster both come from the timing node (`nas.search.measure.on_cluster`), else from this machine.
"""

from __future__ import annotations

import contextlib
import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import space
from nas.errors import BusyError, ExportError, HaltedError, TargetError, UnmeasuredError
from nas.latency import Meter
from nas.latency.careful import time_each, time_one
from nas.latency.default import CLASSES, NETWORKS
from nas.latency.estimates import calibration
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures, MeasuresFinished
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.record import Latency, OtherPrecision, Statistic
from nas.latency.target import Target
from nas.latency.worker.replies import LostError
from nas.quantization.verdicts import unbeaten
from space.architecture import Architecture

LOGGER = logging.getLogger(__name__)
NO_VERDICT = (BusyError, LostError)
"""Errors after which nothing can be timed for now, whatever the precision."""


class Halting(Measures, Protocol):
    """Times architectures, and can be interrupted."""

    def halt(self) -> None:
        """Interrupt the measurement of another thread, which gets a HaltedError; so does every later measurement."""


class Timing(Halting, Protocol):
    """Times architectures on one device, and knows its latency table."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The device and the versions that latencies depend on, as in their records."""

    def kept_table(self) -> LatencyTable | None:
        """The usable latency table that the timing machine keeps for the device; None when it has none."""

    def targets(self) -> tuple[Target, ...]:
        """The targets that are timed, which differ in precision; the highest first."""

    def left_out(self) -> tuple[str, ...]:
        """For each requested target that is not timed, the reason."""


TimingOf = Callable[..., contextlib.AbstractContextManager[Timing]]
"""Makes a timing for targets that differ in precision, an input size (H, W), a number of classes, `patience_seconds`
and the `statistic` that the budget limits.
"""
CertifierOf = Callable[..., contextlib.AbstractContextManager[MeasuresFinished]]
"""Makes a meter for finished networks, for a target, an input size (H, W), a number of classes and `patience_seconds`.
"""


class LocalTiming(Meter):
    """A `Meter` with the latency table that this machine keeps for its device."""

    def kept_table(self) -> LatencyTable | None:
        """See `Timing.kept_table`."""
        return calibration.kept_table(self)

    def targets(self) -> tuple[Target, ...]:
        """See `Timing.targets`."""
        return (self.target,)

    def left_out(self) -> tuple[str, ...]:
        """See `Timing.left_out`."""
        return ()


class FastestTiming:
    """Times networks in several precisions, the highest first.

    A network's latency is that of the highest precision that no other significantly beats, by its interval and by the
    statistic that the budget limits. The record's target names this precision, and the record also holds the latencies
    in the others.

    A precision in which a network cannot be timed does not count for that network. A precision in which nothing can be
    timed any more is left out from then on.
    """

    def __init__(
        self, timings: Sequence[Timing], *, statistic: Statistic = "p50", left_out: Sequence[str] = ()
    ) -> None:
        self._timings = list(timings)
        self._statistic = statistic
        self._left_out = list(left_out)
        self._halted = False

    @property
    def environment(self) -> Mapping[str, str]:
        """See `Timing.environment`; that of the highest precision."""
        return self._timings[0].environment

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """As `Meter.measure`.

        Raises: UnmeasuredError when the network can be timed in no precision; TargetError, ExportError or HaltedError
        when no network can.
        """

        def take(timing: Measures) -> list[Latency | UnmeasuredError]:
            try:
                return [time_one(timing, architecture, within=within, weights=weights)]
            except UnmeasuredError as error:
                return [error]

        return self._fastest(self._in_each(take))[0]

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """As `Meter.measure_together`.

        Raises: UnmeasuredError when a network can be timed in no precision; TargetError, ExportError or HaltedError
        when no network can.
        """
        return self._fastest(self._in_each(lambda timing: time_each(timing, architectures, within=within)))

    def kept_table(self) -> LatencyTable | None:
        """Of the tables of the precisions, the one with the lowest estimates for typical networks. Measurements correct
        it, also where a precision without a table is faster.
        """
        tables = [table for table in (timing.kept_table() for timing in self._timings) if table is not None]
        return min(tables, key=_typical_milliseconds, default=None)

    def targets(self) -> tuple[Target, ...]:
        """See `Timing.targets`."""
        return tuple(target for timing in self._timings for target in timing.targets())

    def left_out(self) -> tuple[str, ...]:
        """See `Timing.left_out`."""
        return tuple(self._left_out)

    def halt(self) -> None:
        """See `Halting.halt`."""
        self._halted = True
        for timing in tuple(self._timings):
            timing.halt()

    def _in_each(
        self, take: Callable[[Measures], list[Latency | UnmeasuredError]]
    ) -> list[list[Latency | UnmeasuredError]]:
        """The results of `take` in each precision. One in which nothing can be timed is left out from now on."""
        found = []
        for timing in tuple(self._timings):
            try:
                found.append(take(timing))
            except (TargetError, ExportError, HaltedError) as error:
                if self._halted or isinstance(error.__cause__, NO_VERDICT) or self._timings == [timing]:
                    raise
                self._timings.remove(timing)
                self._left_out.append(str(error))
                LOGGER.warning("left out from now on: %s", error)
        return found

    def _fastest(self, found: Sequence[Sequence[Latency | UnmeasuredError]]) -> list[Latency]:
        return [self._chosen(precisions) for precisions in zip(*found, strict=True)]

    def _chosen(self, found: Sequence[Latency | UnmeasuredError]) -> Latency:
        latencies = [each for each in found if not isinstance(each, UnmeasuredError)]
        if not latencies:
            raise next(each for each in found if isinstance(each, UnmeasuredError))
        chosen = unbeaten(latencies, lambda latency: latency, self._statistic)
        others = tuple(OtherPrecision.of(each) for each in latencies if each is not chosen)
        return replace(chosen, other_precisions=others)


def _typical_milliseconds(table: LatencyTable) -> float:
    return statistics.geometric_mean(table.estimate(space.load(name), CLASSES) for name in NETWORKS)


@contextlib.contextmanager
def local_timing(
    targets: Sequence[Target],
    size: tuple[int, int],
    num_classes: int,
    *,
    patience_seconds: float = PATIENCE_SECONDS,
    statistic: Statistic = "p50",
) -> Iterator[Timing]:
    """A timing on this machine. Of several targets, those that cannot be timed are left out. The budget limits
    `statistic`.

    Raises: TargetError when no target can be timed.
    """
    timings: list[LocalTiming] = []
    refused: list[TargetError] = []
    with contextlib.ExitStack() as entered:
        for target in targets:
            timing = LocalTiming(target, size, num_classes, patience_seconds=patience_seconds)
            try:
                timings.append(entered.enter_context(timing))
            except TargetError as error:
                refused.append(error)
        if not timings:
            raise refused[0]
        if len(targets) == 1:
            yield timings[0]
        else:
            yield FastestTiming(timings, statistic=statistic, left_out=[str(error) for error in refused])
