"""InterleavedTimer: times candidates in turns, alone on their device, and makes their records."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from nas.latency.machine import device, gpu, lane
from nas.latency.machine.watch import Watch
from nas.latency.protocol import PATIENCE_SECONDS
from nas.latency.protocol.anchor import AWAY_SECONDS, Anchor, noted
from nas.latency.protocol.interleaving import Conditions, measure
from nas.latency.protocol.pairs import Pairs, summarise
from nas.latency.protocol.quiet import quiet_median
from nas.latency.protocol.ready import ReadyNetwork
from nas.latency.record import Latency
from nas.latency.target import Target


class InterleavedTimer:
    """Times networks on one target at one input size (H, W), and remembers the machine's state between measurements."""

    def __init__(
        self,
        target: Target,
        size: tuple[int, int],
        environment: Mapping[str, str],
        watch: Watch,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._target = target
        self._size = size
        self._environment = environment
        self._watch = watch
        self._anchor: Anchor | None = None  # shared by all measurements, so that their milliseconds compare
        self._sought_seconds = 0.0  # when we last tried to replace a flagged anchor
        self._patience_seconds = patience_seconds
        self._in_vain = False  # whether the last measurement used up its patience

    def measure(self, candidates: Sequence[ReadyNetwork], within: float) -> list[Latency]:
        """The latency of each candidate at batch 1. They take turns until half of each 95 % interval is at most the
        share `within` of the latency.

        Raises: UserError when the anchor cannot be saved.
        """
        with self._alone():
            anchor = self._anchor
            begun = self._watch.seconds()
            may_be_quiet = begun - self._sought_seconds >= AWAY_SECONDS
            if anchor is None or (anchor.flagged and may_be_quiet):
                anchor, self._sought_seconds = candidates[0].anchored(None), begun
            taken = self._take(candidates, anchor, within)
            after = noted(anchor, _reference_away(taken), self._watch.seconds())
            if after.is_left(self._watch.seconds()):
                after = candidates[0].anchored(after)
                if (after.milliseconds, after.canary) != (anchor.milliseconds, anchor.canary):
                    anchor, taken = after, self._take(candidates, after, within)
        self._anchor = after
        return [
            summarise(pairs, anchor, target=self._target, size=self._size, environment=self._environment)
            for pairs in taken
        ]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lane alone for the target: the whole machine, or its GPU and the core that launches its work."""
        timed = self._target.device
        with lane.exclusive(gpu.name_of(timed)), device.on_core_of(timed, gpu.count() if self._target.on_cuda else 0):
            yield

    def _take(self, candidates: Sequence[ReadyNetwork], anchor: Anchor, within: float) -> list[Pairs]:
        conditions = Conditions(
            anchor=anchor,
            threads=self._target.thread_count(),
            within=within,
            patience_seconds=self._patience_seconds,
            in_vain=self._in_vain,
            watch=self._watch,
            neighbours=not self._target.on_cuda,
        )
        taken = measure(candidates, conditions)
        self._in_vain = any(pairs.away for pairs in taken)
        return taken


def _reference_away(taken: Sequence[Pairs]) -> float | None:
    """Latency of the reference if the machine was away from its anchor for all candidates, else None."""
    return quiet_median(taken[0].reference) if all(pairs.away for pairs in taken) else None
