"""Timing candidates some of which cannot be timed, because of wrong labels, a runtime's refusal or too little memory.

A failure of one candidate says nothing about the others, nor about the target. A candidate that fails is tried once
more, alone. If that fails too, timing a network that every target can time shows whether the candidate or the target is
at fault.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import space
from nas.errors import BusyError, ExportError, HaltedError, TargetError, UnmeasuredError
from nas.host.room import is_shortage
from nas.latency.meter import Measures, MeasuresFinished, MeasuresOne
from nas.latency.protocol import QUICK, WITHIN
from nas.latency.record import Latency
from nas.latency.worker.replies import WorkerError, reason_of
from space.architecture import Architecture
from space.scale import NARROWEST, scale_width

FAULTS = (TargetError, ExportError, WorkerError, MemoryError)
"""Errors of a measurement that may be the candidate's fault."""
CRASHES = tuple(-each for each in (signal.SIGILL, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV))
CONTROL = "ndnet45-fcn32"  # narrowed: no network in a search demands less of a target

T = TypeVar("T")


def time_each(
    meter: Measures, architectures: Sequence[Architecture], *, within: float
) -> list[Latency | UnmeasuredError]:
    """Latencies of untrained networks that take turns; for a network that cannot be timed, the error that says why. The
    others then take turns without it.

    Raises: TargetError, ExportError or HaltedError when the target cannot time any network; HaltedError when other
    processes hold the memory.
    """
    if not architectures:
        return []
    with _unless_busy():
        try:
            return list(meter.measure_together(architectures, within=within))
        except (*FAULTS, UnmeasuredError):
            alone = _one_by_one(meter, architectures, within)
        timed = [place for place, each in enumerate(alone) if isinstance(each, Latency)]
        if 1 < len(timed) < len(alone):
            with contextlib.suppress(*FAULTS, UnmeasuredError):  # then their latencies taken alone count
                anew = meter.measure_together([architectures[place] for place in timed], within=within)
                for place, latency in zip(timed, anew, strict=True):
                    alone[place] = latency
        return alone


def _one_by_one(
    meter: Measures, architectures: Sequence[Architecture], within: float
) -> list[Latency | UnmeasuredError]:
    found: list[Latency | UnmeasuredError] = []
    for each in architectures:
        try:
            found += _at_fault(meter, lambda each=each: meter.measure_together([each], within=within))  # type: ignore[misc]
        except UnmeasuredError as error:
            found.append(error)
    return found


def is_refusal(error: UnmeasuredError) -> bool:
    """Whether the target would refuse the network again or crash on it. Not if memory was short, no answer came in
    time, the process was ended from outside or our own code failed.
    """
    cause = error.__cause__
    if cause is None or is_shortage(cause):
        return False
    if isinstance(cause, WorkerError):
        return cause.code in CRASHES
    return isinstance(cause, (TargetError, ExportError))


def time_one(meter: MeasuresOne, architecture: Architecture, *, within: float, weights: Path | None = None) -> Latency:
    """The latency of a network, as from `Meter.measure`.

    Raises: UnmeasuredError when it cannot be timed although others can; TargetError, ExportError or HaltedError when
    the target cannot time any network; HaltedError when other processes hold the memory.
    """
    with _unless_busy():
        try:
            return meter.measure(architecture, weights=weights, within=within)
        except FAULTS:
            return _at_fault(meter, lambda: meter.measure(architecture, weights=weights, within=within))


@dataclass(frozen=True, kw_only=True)
class CarefulMeter:
    """A meter that raises UnmeasuredError if a network is at fault; see `time_one`."""

    meter: MeasuresFinished

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """See `Meter.measure`."""
        return time_one(self.meter, architecture, within=within, weights=weights)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """See `Meter.measure_together`."""
        found = []
        for each in time_each(self.meter, architectures, within=within):
            if isinstance(each, UnmeasuredError):
                raise each
            found.append(each)
        return found

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        """See `Meter.measure_graph`."""
        with _unless_busy():
            try:
                return self.meter.measure_graph(graph, within=within)
            except FAULTS:
                return _at_fault(self.meter, lambda: self.meter.measure_graph(graph, within=within))


@contextlib.contextmanager
def _unless_busy() -> Iterator[None]:
    """Turn BusyError into HaltedError: memory held by other processes is not the fault of a network.

    Raises: HaltedError.
    """
    try:
        yield
    except BusyError as error:
        raise HaltedError(
            f"{error}; nothing finished is lost: free memory, or train fewer at a time (`search.concurrent` in a run's "
            "study.yaml), then try again, a search with --resume"
        ) from error


def _at_fault(meter: MeasuresOne, again: Callable[[], T]) -> T:
    """The result of `again`.

    Raises: UnmeasuredError when it fails although the control can be timed; else TargetError, ExportError or
    HaltedError.
    """
    try:
        return again()
    except FAULTS as error:
        control = scale_width(space.load(CONTROL), NARROWEST)
        try:
            meter.measure(control, within=QUICK * WITHIN)
        except (TargetError, ExportError):
            raise
        except FAULTS as broken:
            raise HaltedError(
                f"expected a target that can be timed, but its process failed: {reason_of(broken)}; free memory and "
                "disk space, see `nas doctor`, then try again, a search with --resume"
            ) from error
        raise UnmeasuredError(reason_of(error)) from error
