"""The referee: has candidates timed in turns beside no training step, and writes the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from nas.latency import runtimes
from nas.latency.machine import lane
from nas.latency.protocol import alternation
from nas.latency.protocol.anchor import Anchor
from nas.latency.protocol.stand import Stand
from nas.latency.record import Latency
from nas.latency.target import Target


class Place(Stand, Protocol):
    """A candidate ready to be timed, on a device that has an anchor."""

    def anchored(self, instead_of: Anchor | None) -> Anchor:
        """The device's anchor, or a new one for a machine that turned out better than that one."""


class Referee:
    """Of one target and input size. What it learns of the machine it keeps from one measurement to the next."""

    def __init__(self, target: Target, size: tuple[int, int], environment: Mapping[str, str]) -> None:
        self._target = target
        self._size = size
        self._environment = environment
        self._anchor: Anchor | None = None  # one for all, so that all milliseconds compare
        self._patience_seconds = alternation.PATIENCE_SECONDS  # for a machine that is not as it was anchored

    def measure(self, places: Sequence[Place], within: float) -> list[Latency]:
        """The latency of each candidate at batch 1, to `within` that share of it; they take turns."""
        with lane.alone():
            anchored = self._anchor or places[0].anchored(None)
            taken = self._take(places, anchored, within)
            if any(one.better for one in taken):
                anchored = places[0].anchored(anchored)
                taken = self._take(places, anchored, within)
        self._anchor = anchored
        # A machine that stays away is not waited for each time as long; one that came back is, little by little.
        away = any(one.out_of_patience for one in taken)
        self._patience_seconds = min(self._patience_seconds * (0.5 if away else 2.0), alternation.PATIENCE_SECONDS)
        return [
            alternation.summarise(
                one,
                anchor_milliseconds=anchored.milliseconds,
                anchor_flagged=anchored.flagged,
                target=self._target,
                size=self._size,
                environment=self._environment,
            )
            for one in taken
        ]

    def _take(self, places: Sequence[Place], anchored: Anchor, within: float) -> list[alternation.Pairs]:
        conditions = alternation.Conditions(
            normal=anchored.normal,
            threads=self._target.thread_count(),
            within=within,
            patience_seconds=self._patience_seconds,
            watch=runtimes.watch(runtimes.load(self._target)),
        )
        return alternation.measure(places, conditions)
