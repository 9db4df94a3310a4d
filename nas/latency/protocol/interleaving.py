"""Blocks of several candidates in turns: how many are taken, and which of them count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nas.latency.machine import load
from nas.latency.machine.watch import THIS_MACHINE, Watch
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.protocol.anchor import FAR_CANARY, FAR_FROM_ANCHOR, Anchor
from nas.latency.protocol.pairs import Pairs
from nas.latency.protocol.quiet import quiet_median
from nas.latency.protocol.ready import ReadyNetwork, TimedBlock

BLOCKS = 8  # least, to be sure within `WITHIN`; fewer when less is asked
MOST_BLOCKS = 3  # times the least
MORE_SECONDS = 15.0  # nothing is added after that long: the machine is not going to be quiet
QUIET_BLOCKS = 3  # least; fewer when less is asked

PERIOD_SECONDS = 0.25  # least, from one block of a candidate to its next; less where less is asked
PAUSE_SECONDS = (0.05, 1.0)  # first and longest
BETTER_BLOCKS = 4  # after which a machine that is better than it was anchored is not waited for
IN_VAIN_SECONDS = 1.0  # of waiting, where it was in vain the last time


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which pairs are taken: on what machine, with how many threads, how surely and how patiently."""

    anchor: Anchor
    """Says what the machine is like when nothing disturbs it."""
    threads: int
    """CPU threads that a call uses."""
    within: float = WITHIN
    """Half of the ratio's 95 % interval that is asked for, as a share of the ratio."""
    patience_seconds: float = PATIENCE_SECONDS
    """How long to wait, for each candidate, for a machine that is not as it was anchored. More of it than usual also
    allows as many times more blocks and repetitions."""
    in_vain: bool = False
    """Whether the last measurement waited all its patience: then no more than `IN_VAIN_SECONDS` are, until a block
    counts again."""
    watch: Watch = THIS_MACHINE
    """The clock that says whose turn it is."""
    neighbours: bool = True
    """Whether what other cores do disturbs (`load.disturbances`)."""

    @property
    def blocks(self) -> int:
        """The least, of each candidate."""
        return math.ceil(BLOCKS * self.ease)

    @property
    def quiet_blocks(self) -> int:
        """The least that are undisturbed."""
        return math.ceil(QUIET_BLOCKS * self.ease)

    @property
    def stretch(self) -> float:
        """How many times the usual effort may be made until intervals are narrow and nothing disturbs."""
        return max(1.0, self.patience_seconds / PATIENCE_SECONDS)

    @property
    def ease(self) -> float:
        """The share of the full effort that is asked for."""
        return min(1.0, WITHIN / self.within)


def measure(candidates: Sequence[ReadyNetwork], conditions: Conditions) -> list[Pairs]:
    """Warm up and take pairs; once more of those that something disturbed, and then the better of the two. Who is more
    patient than usual repeats that.
    """
    for candidate in candidates:
        candidate.warm_up()
    taken = take_pairs(candidates, conditions)
    deadline = conditions.watch.seconds() + conditions.patience_seconds - PATIENCE_SECONDS
    repeated = False
    while again := [index for index, one in enumerate(taken) if one.repeatable]:
        if repeated and conditions.watch.seconds() >= deadline:
            break
        repeated = True
        second = take_pairs([candidates[index] for index in again], conditions)
        for index, other in zip(again, second, strict=True):
            taken[index] = min(taken[index], other, key=lambda one: (len(one.flagged), one.half_width))
    return taken


def take_pairs(candidates: Sequence[ReadyNetwork], conditions: Conditions) -> list[Pairs]:
    """Blocks of calls until the intervals are narrow or a limit is reached.

    Several candidates take turns block by block, so that each meets the machine in the same states.
    """
    every = [_Series(candidate=candidate, conditions=conditions) for candidate in candidates]
    waited, better = 0.0, 0
    most_waiting = conditions.patience_seconds * conditions.ease * len(every)
    if conditions.in_vain:
        most_waiting = min(most_waiting, IN_VAIN_SECONDS)
    pause, longest = PAUSE_SECONDS
    watch = conditions.watch

    def gives_up() -> bool:
        return waited > most_waiting or better >= BETTER_BLOCKS

    while unfinished := [one for one in every if not (one.enough() if gives_up() else one.full())]:
        for series in unfinished:
            start = watch.seconds()
            block = series.take_block()
            unusual, slower = _unusual(block, conditions)
            if not unusual:
                series.counted.append(block)
                most_waiting = conditions.patience_seconds * conditions.ease * len(every)  # it comes back
                better = 0
                continue
            series.aside.append(block)
            series.reason = unusual
            better += not slower
            if not gives_up():
                watch.sleep(pause)
                pause = min(2 * pause, longest)
            waited += watch.seconds() - start
    return [series.taken() for series in every]


@dataclass(kw_only=True)
class _Series:
    """The blocks of one candidate so far."""

    candidate: ReadyNetwork
    conditions: Conditions
    counted: list[TimedBlock] = field(default_factory=list)
    aside: list[TimedBlock] = field(default_factory=list)
    """Blocks that do not count, since the machine was not as it was anchored."""
    reason: str = ""
    """Why the last of them was set aside."""
    seconds: float = 0.0
    next_turn: float = 0.0

    def take_block(self) -> TimedBlock:
        """One more, not before its turn."""
        watch = self.conditions.watch
        watch.sleep(max(0.0, self.next_turn - watch.seconds()))
        start = watch.seconds()
        block = self.candidate.take_block()
        self.seconds += watch.seconds() - start
        self.next_turn = start + PERIOD_SECONDS * self.conditions.ease
        return block

    def enough(self) -> bool:
        """Whether there are the fewest blocks, on whatever machine: what a measurement that waits no longer needs."""
        return len(self.counted) + len(self.aside) >= self.conditions.blocks

    def full(self) -> bool:
        """Whether nothing is to be added."""
        count, least = len(self.counted), self.conditions.blocks
        if count < least:
            return False
        stretch = self.conditions.stretch
        if count >= stretch * MOST_BLOCKS * least or self.seconds > stretch * MORE_SECONDS:
            return True
        taken = _pairs(self.counted)
        return taken.quiet_blocks >= self.conditions.quiet_blocks and taken.half_width <= self.conditions.within

    def taken(self) -> Pairs:
        """The pairs of the blocks that count; of all blocks where those are too few."""
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
    """How the machine differs from the anchored one (empty when it does not), and whether for the worse."""
    anchor = conditions.anchor
    milliseconds = float(np.median(block.times[:, 1]))
    far = _far_from_anchor(milliseconds, anchor)
    if far:
        return far, milliseconds > anchor.milliseconds
    canary = block.canary_milliseconds / milliseconds / anchor.canary
    if conditions.threads > 1 and not 1 / FAR_CANARY <= canary <= FAR_CANARY:  # one thread needs no other core
        return f"the cores exchanged data at {canary:.2f} of the anchored cost", canary > 1
    return "", False


def _far_from_anchor(reference_milliseconds: float, anchor: Anchor) -> str:
    share = reference_milliseconds / anchor.milliseconds
    if 1 / FAR_FROM_ANCHOR <= share <= FAR_FROM_ANCHOR:
        return ""
    best = anchor.best_milliseconds
    at_best = "" if best is None else f" ({best / anchor.milliseconds:.2f} at best)"
    return f"the machine ran the reference at {share:.2f} of its anchored latency{at_best}"


def _doubts(pairs: Pairs, conditions: Conditions) -> tuple[str, ...]:
    reasons = []
    if pairs.quiet_blocks < conditions.quiet_blocks:
        reasons.append(f"only {pairs.quiet_blocks} of {len(pairs.candidate)} blocks were undisturbed")
    if pairs.half_width > conditions.within:
        reasons.append(f"the median is known to {pairs.half_width:.1%} only after {pairs.count} pairs")
    return tuple(reasons)
