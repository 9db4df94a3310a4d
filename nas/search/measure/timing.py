"""What a search times with: a meter that also gives the latency table kept for its device, if there is one.

On a cluster both come from the node that times (`nas.search.measure.on_cluster`), else from this machine.
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
"""Why nothing can be timed now, whatever the precision."""


class Halting(Measures, Protocol):
    """What times architectures, and can be broken off."""

    def halt(self) -> None:
        """End what another thread measures, which gets a HaltedError, as it does from then on."""


class Timing(Halting, Protocol):
    """What times architectures on one device, and knows its latency table."""

    @property
    def environment(self) -> Mapping[str, str]:
        """What latencies depend on there: device and versions, as in their records."""

    def kept_table(self) -> LatencyTable | None:
        """The table that the machine which times keeps of the device, or None when it has none that can be used."""

    def targets(self) -> tuple[Target, ...]:
        """What is timed: a target, in several precisions the highest first."""

    def left_out(self) -> tuple[str, ...]:
        """Why targets that were asked for are not timed."""


TimingOf = Callable[..., contextlib.AbstractContextManager[Timing]]
"""Makes a timing for targets that differ in precision, an input size (H, W), a number of classes, `patience_seconds`
and the `statistic` that the budget counts.
"""
CertifierOf = Callable[..., contextlib.AbstractContextManager[MeasuresFinished]]
"""Makes what times a finished network, for a target, an input size (H, W), a number of classes and `patience_seconds`.
"""


class LocalTiming(Meter):
    """A `Meter`, and the table that this machine keeps of its device."""

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
    """Times in several precisions, the highest first. The latency of a network is that in the highest which no other
    surely beats, in its interval and in what the budget counts; the record's target names it, and the record holds what
    the network took in the others.

    A precision in which one network cannot be timed is no choice for that one; where nothing can be timed in it any
    more, it is left out from then on.
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
        """See `Timing.environment`: in the highest precision."""
        return self._timings[0].environment

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """As `Meter.measure`.

        Raises: UnmeasuredError when the network can be timed in no precision; TargetError, ExportError or HaltedError
        when nothing can.
        """

        def one(timing: Measures) -> list[Latency | UnmeasuredError]:
            try:
                return [time_one(timing, architecture, within=within, weights=weights)]
            except UnmeasuredError as error:
                return [error]

        return self._fastest(self._in_each(one))[0]

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """As `Meter.measure_together`.

        Raises: UnmeasuredError when a network can be timed in no precision; TargetError, ExportError or HaltedError
        when nothing can.
        """
        return self._fastest(self._in_each(lambda timing: time_each(timing, architectures, within=within)))

    def kept_table(self) -> LatencyTable | None:
        """Of the tables that its precisions have, the one by which networks of each family take the least. What is
        measured corrects it, also where a precision without one is faster.
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
        """What is taken in each precision; those in which nothing can be timed any more are left out from now on."""
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
        return [self._chosen(of_one) for of_one in zip(*found, strict=True)]

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
    """What times on this machine. Of several targets those that cannot be timed are left out; `statistic` is what the
    budget counts.

    Raises: TargetError when none can.
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
