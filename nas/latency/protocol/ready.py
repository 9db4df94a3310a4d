"""A candidate: a network that is ready to be timed, in blocks of calls that alternate with the reference's."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from nas.latency.machine import load
from nas.latency.machine.watch import Watch
from nas.latency.protocol import anchor
from nas.latency.protocol.anchor import Anchor
from nas.latency.protocol.controls import Call, Controls, canary_milliseconds, milliseconds, warm_up

BLOCK_PAIRS = (5, 25)  # fewest and most
BLOCK_MILLISECONDS = 100.0  # intended duration of a block
WARM_PAIRS = 1  # at the beginning of each block, not counted


@dataclass(frozen=True, kw_only=True)
class TimedBlock:
    """Some pairs of calls in a row, and what the machine did meanwhile."""

    times: NDArray[np.float64]
    """Milliseconds (pairs, 2) of candidate and reference."""
    canary_milliseconds: float
    """Median of the canary at the end of the block."""
    span: load.Span


class ReadyNetwork(Protocol):
    """A network ready to be timed, in this process (`LocalNetwork`) or in one of its own (`RemoteNetwork`)."""

    def warm_up(self) -> None:
        """Call candidate and reference in turns until caches, allocators, clocks and thread pools have settled."""

    def take_block(self) -> TimedBlock:
        """Time a block of about `BLOCK_MILLISECONDS`. All blocks of a candidate have equally many pairs."""

    def anchored(self, instead_of: Anchor | None) -> Anchor:
        """The device's anchor; or a new one, if the machine is still away from the anchor `instead_of`.

        Raises: UserError when the anchor cannot be saved.
        """

    def labels(self) -> NDArray[Any]:
        """Labels (1, H, W) that one call returns, in CPU memory."""


class LocalNetwork:
    """A candidate in the same process as its controls."""

    def __init__(self, call: Call, controls: Controls) -> None:
        self._call = call
        self._controls = controls
        self._pairs = 0  # per block; 0 until the first one

    def warm_up(self) -> None:
        """See `ReadyNetwork`."""
        warm_up(self._call, self._controls.reference, self._controls.watch)

    def take_block(self) -> TimedBlock:
        """See `ReadyNetwork`."""
        call, reference, watch = self._call, self._controls.reference, self._controls.watch
        self._pairs = self._pairs or _pairs_of_a_block(call, reference, watch)
        for _ in range(WARM_PAIRS):
            call()
            reference()
        with _no_collection():
            before = watch.snapshot(self._controls.device)
            times = [[milliseconds(call, watch), milliseconds(reference, watch)] for _ in range(self._pairs)]
            canary = canary_milliseconds(self._controls)
            span = before, watch.snapshot(self._controls.device)
        return TimedBlock(times=np.asarray(times), canary_milliseconds=canary, span=span)

    def anchored(self, instead_of: Anchor | None) -> Anchor:
        """See `ReadyNetwork`."""
        if instead_of is None:
            return anchor.obtain(self._controls)
        return anchor.renew(self._controls, instead_of)

    def labels(self) -> NDArray[Any]:
        """See `ReadyNetwork`."""
        return np.asarray(self._call())


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def _pairs_of_a_block(call: Call, reference: Call, watch: Watch) -> int:
    fewest, most = BLOCK_PAIRS
    pair = milliseconds(call, watch) + milliseconds(reference, watch)
    return min(most, max(fewest, math.ceil(BLOCK_MILLISECONDS / pair)))
