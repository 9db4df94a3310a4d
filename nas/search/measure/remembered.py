"""A timing with a memory: latencies that an earlier run measured under the same conditions are reused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.search.measure.timing import Timing
from space.architecture import Architecture


class RememberedTiming:
    """A timing that first looks for an architecture's key among known latencies.

    A known latency is used only if it is undisturbed and as precise as requested, and if its target, input size, anchor
    and whole environment equal those of a latency that this timing has measured itself; so none is used before the
    first measurement.
    """

    def __init__(self, timing: Timing, known: Mapping[str, Latency]) -> None:
        self._timing = timing
        self._known = known
        self._here: set[tuple[object, ...]] = set()  # conditions of the measurements made here

    @property
    def environment(self) -> Mapping[str, str]:
        """See `Timing.environment`."""
        return self._timing.environment

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """As `Meter.measure`."""
        latency = None if weights is not None else self._recalled(architecture, within)
        return latency or self._noted(self._timing.measure(architecture, weights=weights, within=within))

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """As `Meter.measure_together`."""
        recalled = [self._recalled(each, within) for each in architectures]
        missing = [each for each, latency in zip(architectures, recalled, strict=True) if latency is None]
        measured = iter(self._timing.measure_together(missing, within=within) if missing else ())
        return [self._noted(next(measured)) if latency is None else latency for latency in recalled]

    def kept_table(self) -> LatencyTable | None:
        """See `Timing.kept_table`."""
        return self._timing.kept_table()

    def targets(self) -> tuple[Target, ...]:
        """See `Timing.targets`."""
        return self._timing.targets()

    def left_out(self) -> tuple[str, ...]:
        """See `Timing.left_out`."""
        return self._timing.left_out()

    def halt(self) -> None:
        """See `Halting.halt`."""
        self._timing.halt()

    def _recalled(self, architecture: Architecture, within: float) -> Latency | None:
        latency = self._known.get(architecture.key)
        known = latency is not None and latency.is_as_sure_as(within) and _conditions(latency) in self._here
        return latency if known else None

    def _noted(self, latency: Latency) -> Latency:
        self._here.add(_conditions(latency))
        return latency


def _conditions(latency: Latency) -> tuple[object, ...]:
    environment = tuple(sorted(latency.environment.items()))
    return latency.target, latency.height, latency.width, latency.batch, latency.reference_milliseconds, environment
