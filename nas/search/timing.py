"""What a search times with: a meter that also gives the latency table kept for its device, if there is one.

On a cluster both come from the node that times (`nas.search.cluster_timing`), else from this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from nas.latency import Meter
from nas.latency.estimates import calibration
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures, MeasuresFinished
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.search.measuring import time_each, time_one
from space.architecture import Architecture
from space.errors import TargetError, UnmeasuredError


class Timing(Measures, Protocol):
    """What times architectures on one device, and knows its latency table."""

    def kept_table(self) -> LatencyTable | None:
        """The table that the machine which times keeps of the device, or None when it has none that can be used."""

    def left_out(self) -> tuple[str, ...]:
        """Why targets that were asked for are not timed."""


TimingOf = Callable[..., contextlib.AbstractContextManager[Timing]]
"""Makes a timing for targets that differ in precision, an input size (H, W), a number of classes and
`patience_seconds`.
"""
CertifierOf = Callable[..., contextlib.AbstractContextManager[MeasuresFinished]]
"""Makes what times a finished network, for a target, an input size (H, W), a number of classes and `patience_seconds`.
"""


class LocalTiming(Meter):
    """A `Meter`, and the table that this machine keeps of its device."""

    def kept_table(self) -> LatencyTable | None:
        """See `Timing.kept_table`."""
        return calibration.kept_table(self)

    def left_out(self) -> tuple[str, ...]:
        """See `Timing.left_out`."""
        return ()


class FastestTiming:
    """Times in several precisions. The latency of a network is that in its fastest, which the record's target names:
    all precisions of a device are ratios to one reference, and compare.
    """

    def __init__(self, timings: Sequence[Measures], left_out: Sequence[str] = ()) -> None:
        self._timings = tuple(timings)
        self._left_out = tuple(left_out)

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """As `Meter.measure`. Raises: UnmeasuredError when no precision can be timed."""
        return _fastest([_tried(timing, architecture, weights, within) for timing in self._timings])

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """As `Meter.measure_together`. Raises: UnmeasuredError when one can be timed in no precision."""
        found = [time_each(timing, architectures, within=within) for timing in self._timings]
        return [_fastest(of_one) for of_one in zip(*found, strict=True)]

    def kept_table(self) -> None:
        """None: a table is of one precision. What was measured in the run takes its place."""

    def left_out(self) -> tuple[str, ...]:
        """See `Timing.left_out`."""
        return self._left_out


@contextlib.contextmanager
def local_timing(
    targets: Sequence[Target], size: tuple[int, int], num_classes: int, *, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[Timing]:
    """What times on this machine. Of several targets those that cannot be timed are left out.

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
        yield timings[0] if len(targets) == 1 else FastestTiming(timings, [str(error) for error in refused])


def _tried(
    timing: Measures, architecture: Architecture, weights: Path | None, within: float
) -> Latency | UnmeasuredError:
    try:
        return time_one(timing, architecture, within=within, weights=weights)
    except UnmeasuredError as error:
        return error


def _fastest(found: Sequence[Latency | UnmeasuredError]) -> Latency:
    latencies = [each for each in found if not isinstance(each, UnmeasuredError)]
    if not latencies:
        raise next(each for each in found if isinstance(each, UnmeasuredError))
    return min(latencies, key=lambda latency: latency.p50_milliseconds)
