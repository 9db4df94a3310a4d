"""A candidate and who stands beside it in the same process: warmed up, and timed in blocks of alternating calls."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.latency.machine import load
from nas.latency.machine.watch import THIS_MACHINE, Watch

Run = Callable[[], object]

WARM_UP_CALLS = (5, 60)  # least and most pairs
WARM_UP_SECONDS = 0.2  # least: other processes' idle threads spin on that long after a training step
WARM_UP_STABLE = 0.05  # change of the median of five ratios

BLOCK_PAIRS = (5, 25)  # fewest and most
BLOCK_MILLISECONDS = 100.0  # that a block should last
CANARIES = 9  # calls of the canary in a row, of which the first is not counted: it finds the caches cold
WARM_PAIRS = 1  # not counted, at the beginning of each block


@dataclass(frozen=True, kw_only=True)
class Company:
    """What runs beside every candidate (see `nas.latency.protocol.reference`)."""

    reference: Run
    canary: Run
    watch: Watch = THIS_MACHINE  # that tells how long they take


@dataclass(frozen=True, kw_only=True)
class Block:
    """Some pairs of calls, one after the other, and what the machine did meanwhile."""

    times: NDArray[np.float64]  # milliseconds (pairs, 2): candidate, reference
    canary_milliseconds: float
    span: load.Span

    def to_dict(self) -> dict[str, Any]:
        """Plain values, to be sent to another process on a machine whose GPUs were not watched."""
        return {
            "times": self.times.tolist(),
            "canary_milliseconds": self.canary_milliseconds,
            "span": [snapshot.to_dict() for snapshot in self.span],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Block:
        """What `to_dict` gave."""
        before, after = (load.Snapshot(**counters) for counters in values["span"])
        return cls(
            times=np.asarray(values["times"]),
            canary_milliseconds=values["canary_milliseconds"],
            span=(before, after),
        )


class Stand(Protocol):
    """A candidate ready to be timed, in this process (`Beside`) or in one of its own (`nas.latency.worker.children`)."""

    def warm_up(self) -> None:
        """Alternate until the ratio has settled: caches, allocators, clocks and thread pools."""

    def take_block(self) -> Block:
        """Time a block of alternating calls; it lasts a tenth of a second or so, and always has as many pairs."""


class Beside:
    """A candidate in the company's own process."""

    def __init__(self, candidate: Run, company: Company, device: str = "cpu") -> None:
        self._candidate = candidate
        self._company = company
        self._device = device  # or a GPU, whose clocks and tenants are watched as well
        self._pairs = 0  # of a block

    def warm_up(self) -> None:
        """See `Stand`."""
        warm_up(self._candidate, self._company.reference, self._company.watch)

    def take_block(self) -> Block:
        """See `Stand`."""
        candidate, reference, watch = self._candidate, self._company.reference, self._company.watch
        self._pairs = self._pairs or _pairs_of_a_block(candidate, reference, watch)
        for _ in range(WARM_PAIRS):
            candidate()
            reference()
        with _no_collection():
            before = watch.snapshot(self._device)
            times = [[milliseconds(candidate, watch), milliseconds(reference, watch)] for _ in range(self._pairs)]
            canary = canary_milliseconds(self._company)
            span = before, watch.snapshot(self._device)
        return Block(times=np.asarray(times), canary_milliseconds=canary, span=span)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def milliseconds(run: Run, watch: Watch) -> float:
    """Duration of one call."""
    start = watch.nanoseconds()
    run()
    return (watch.nanoseconds() - start) / 1e6


def canary_milliseconds(company: Company) -> float:
    """What the canary takes now, undisturbed by another network."""
    return float(np.median([milliseconds(company.canary, company.watch) for _ in range(CANARIES)][1:]))


def warm_up(candidate: Run, reference: Run, watch: Watch) -> None:
    """Alternate until the ratio has settled."""
    fewest, most = WARM_UP_CALLS
    ratios: list[float] = []
    end = watch.seconds() + WARM_UP_SECONDS
    while len(ratios) < most:
        ratios.append(milliseconds(candidate, watch) / milliseconds(reference, watch))
        if len(ratios) >= max(fewest, 10) and watch.seconds() >= end:
            before, now = np.median(ratios[-10:-5]), np.median(ratios[-5:])
            if abs(now / before - 1) <= WARM_UP_STABLE:
                return


def _pairs_of_a_block(candidate: Run, reference: Run, watch: Watch) -> int:
    fewest, most = BLOCK_PAIRS
    pair = milliseconds(candidate, watch) + milliseconds(reference, watch)
    return min(most, max(fewest, math.ceil(BLOCK_MILLISECONDS / pair)))
