"""Timing several candidates in turns: how many blocks are taken, and which of them count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nas.host.words import counted
from nas.latency.machine import load
from nas.latency.machine.watch import THIS_MACHINE, Watch
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.protocol.anchor import FAR_CANARY, FAR_FROM_ANCHOR, Anchor
from nas.latency.protocol.pairs import Pairs
from nas.latency.protocol.quiet import quiet_median
from nas.latency.protocol.ready import ReadyNetwork, TimedBlock

# Fewest blocks and the shortest period are for an interval of `WITHIN`, and in proportion smaller for a wider one.
BLOCKS = 8  # fewest
MOST_BLOCKS = 3  # as a multiple of the fewest
MORE_SECONDS = 15.0  # of timing, after which no block is added: the machine is not going to be quiet
QUIET_BLOCKS = 3  # fewest

PERIOD_SECONDS = 0.25  # shortest, from the start of one block of a candidate to that of its next
PAUSE_SECONDS = (0.05, 1.0)  # first and longest pause after a block that does not count
BETTER_BLOCKS = 4  # on a machine faster than its anchored state, after which there is no more waiting
IN_VAIN_SECONDS = 1.0  # longest wait after a measurement that waited in vain


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Conditions of a measurement: the machine, the number of threads, and the precision and patience requested."""

    anchor: Anchor
    """State of the machine in which blocks count."""
    threads: int
    """CPU threads that a call uses."""
    within: float = WITHIN
    """Largest acceptable half of the ratio's 95 % interval, as a share of the ratio."""
    patience_seconds: float = PATIENCE_SECONDS
    """How long to wait, per candidate, for the machine to be in its anchored state. More than the default also allows
    proportionally more blocks, and more repetitions."""
    in_vain: bool = False
    """Whether the last measurement used up its patience in vain: this one then waits no longer than `IN_VAIN_SECONDS`,
    until a block counts again."""
    watch: Watch = THIS_MACHINE
    """Clock that blocks are scheduled by."""
    neighbours: bool = True
    """Whether activity on other cores counts as a disturbance (`load.disturbances`)."""

    @property
    def blocks(self) -> int:
        """Fewest blocks per candidate."""
        return math.ceil(BLOCKS * self.ease)

    @property
    def quiet_blocks(self) -> int:
        """Fewest undisturbed blocks per candidate."""
        return math.ceil(QUIET_BLOCKS * self.ease)

    @property
    def stretch(self) -> float:
        """Limits on blocks and time, as a multiple of the usual ones."""
        return max(1.0, self.patience_seconds / PATIENCE_SECONDS)

    @property
    def ease(self) -> float:
        """Share of the full effort that the requested interval needs."""
        return min(1.0, WITHIN / self.within)


def measure(candidates: Sequence[ReadyNetwork], conditions: Conditions) -> list[Pairs]:
    """Warm up and take pairs. Disturbed candidates are timed again, and the better attempt is kept; with more patience
    than the default this is repeated until nothing disturbs them or the patience is used up.
    """
    for candidate in candidates:
        candidate.warm_up()
    taken = take_pairs(candidates, conditions)
    deadline = conditions.watch.seconds() + conditions.patience_seconds - PATIENCE_SECONDS
    repeated = False
    while again := [index for index, pairs in enumerate(taken) if pairs.repeatable]:
        if repeated and conditions.watch.seconds() >= deadline:
            break
        repeated = True
        second = take_pairs([candidates[index] for index in again], conditions)
        for index, other in zip(again, second, strict=True):
            taken[index] = min(taken[index], other, key=lambda pairs: (len(pairs.flagged), pairs.half_width))
    return taken


def take_pairs(candidates: Sequence[ReadyNetwork], conditions: Conditions) -> list[Pairs]:
    """Take blocks of calls until the intervals are narrow or a limit is reached.

    Several candidates take turns block by block, so that each is timed in the same states of the machine.
    """
    all_series = [_Series(candidate=candidate, conditions=conditions) for candidate in candidates]
    waited, better = 0.0, 0
    most_waiting = conditions.patience_seconds * conditions.ease * len(all_series)
    if conditions.in_vain:
        most_waiting = min(most_waiting, IN_VAIN_SECONDS)
    pause, longest = PAUSE_SECONDS
    watch = conditions.watch

    def gives_up() -> bool:
        return waited > most_waiting or better >= BETTER_BLOCKS

    while unfinished := [one for one in all_series if not (one.enough() if gives_up() else one.full())]:
        for series in unfinished:
            start = watch.seconds()
            block = series.take_block()
            unusual, slower = _unusual(block, conditions)
            if not unusual:
                series.counted.append(block)
                most_waiting = conditions.patience_seconds * conditions.ease * len(all_series)  # it does return
                better = 0
                continue
            series.aside.append(block)
            series.reason = unusual
            better += not slower
            if not gives_up():
                watch.sleep(pause)
                pause = min(2 * pause, longest)
            waited += watch.seconds() - start
    return [series.taken() for series in all_series]


@dataclass(kw_only=True)
class _Series:
    """The blocks of one candidate so far."""

    candidate: ReadyNetwork
    conditions: Conditions
    counted: list[TimedBlock] = field(default_factory=list)
    aside: list[TimedBlock] = field(default_factory=list)
    """Blocks that do not count because the machine was not in its anchored state."""
    reason: str = ""
    """Why the last block was set aside."""
    seconds: float = 0.0
    next_turn: float = 0.0

    def take_block(self) -> TimedBlock:
        """Take one more block, not before its turn."""
        watch = self.conditions.watch
        watch.sleep(max(0.0, self.next_turn - watch.seconds()))
        start = watch.seconds()
        block = self.candidate.take_block()
        self.seconds += watch.seconds() - start
        self.next_turn = start + PERIOD_SECONDS * self.conditions.ease
        return block

    def enough(self) -> bool:
        """Whether there are enough blocks, counted or not, for a measurement that does not wait any longer."""
        return len(self.counted) + len(self.aside) >= self.conditions.blocks

    def full(self) -> bool:
        """Whether no more blocks are needed or allowed."""
        count, least = len(self.counted), self.conditions.blocks
        if count < least:
            return False
        stretch = self.conditions.stretch
        if count >= stretch * MOST_BLOCKS * least or self.seconds > stretch * MORE_SECONDS:
            return True
        taken = _pairs(self.counted)
        return taken.quiet_blocks >= self.conditions.quiet_blocks and taken.half_width <= self.conditions.within

    def taken(self) -> Pairs:
        """The pairs of the blocks that count, or of all blocks if too few count."""
        conditions = self.conditions
        short = len(self.counted) < conditions.blocks
        used = self.counted + self.aside if short else self.counted
        taken = _pairs(used)
        far = _far_from_anchor(quiet_median(taken.reference), conditions.anchor)
        reason = far or (self.reason if short else "")
        spans = [block.span for block in used]
        seen = load.disturbances(spans, conditions.threads, neighbours=conditions.neighbours)
        return replace(
            taken,
            disturbances=(*seen, *filter(None, [reason])),
            doubts=_doubts(taken, conditions),
            set_aside=0 if short else sum(len(block.times) for block in self.aside),
            away=short,
        )


def _pairs(blocks: Sequence[TimedBlock]) -> Pairs:
    times = np.stack([block.times for block in blocks])
    return Pairs(candidate=times[:, :, 0], reference=times[:, :, 1], disturbances=())


def _unusual(block: TimedBlock, conditions: Conditions) -> tuple[str, bool]:
    """How the machine differs from its anchored state (empty if it does not), and whether it is slower."""
    anchor = conditions.anchor
    milliseconds = float(np.median(block.times[:, 1]))
    far = _far_from_anchor(milliseconds, anchor)
    if far:
        return far, milliseconds > anchor.milliseconds
    canary = block.canary_milliseconds / milliseconds / anchor.canary
    if conditions.threads > 1 and not 1 / FAR_CANARY <= canary <= FAR_CANARY:  # irrelevant for one thread
        return f"passing data between cores took {canary:.2f} times as long as when anchored", canary > 1
    return "", False


def _far_from_anchor(reference_milliseconds: float, anchor: Anchor) -> str:
    share = reference_milliseconds / anchor.milliseconds
    if 1 / FAR_FROM_ANCHOR <= share <= FAR_FROM_ANCHOR:
        return ""
    best = anchor.best_milliseconds
    at_best = "" if best is None else f" ({best / anchor.milliseconds:.2f} at best)"
    return f"the reference took {share:.2f} times its anchored latency{at_best}"


def _doubts(pairs: Pairs, conditions: Conditions) -> tuple[str, ...]:
    reasons = []
    if pairs.quiet_blocks < conditions.quiet_blocks:
        all_of = f"of {len(pairs.candidate)} blocks"
        reasons.append(f"only {counted(pairs.quiet_blocks, f'{all_of} was', f'{all_of} were')} undisturbed")
    if pairs.half_width > conditions.within:
        reasons.append(f"the median is known only to within {pairs.half_width:.1%} after {pairs.count} pairs")
    return tuple(reasons)
