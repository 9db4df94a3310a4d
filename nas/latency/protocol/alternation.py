"""Calls of a candidate and the reference in turns: how many, when they count, and the record of what came out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from nas.latency.machine import load
from nas.latency.machine.watch import THIS_MACHINE, Watch
from nas.latency.protocol import SCOPE, WITHIN
from nas.latency.protocol.quiet import Times, interval, quiet_blocks, quiet_median, quiet_ratio
from nas.latency.protocol.stand import Block, Stand
from nas.latency.record import Latency
from nas.latency.target import Target

BLOCKS = 8  # least, to be sure within that much; fewer when less is asked
MOST_BLOCKS = 3  # times the least
MORE_SECONDS = 15.0  # nothing is added after that long: the machine is not going to be quiet
QUIET_BLOCKS = 3  # least; fewer when less is asked

PERIOD_SECONDS = 0.25  # least, from one block of a candidate to its next; less where less is asked
PATIENCE_SECONDS = 12.0  # per candidate, for a machine that is not as it was anchored
PAUSE_SECONDS = (0.05, 1.0)  # first and longest
BETTER_BLOCKS = 4  # after which the machine is called better than it was anchored

FAR_FROM_ANCHOR = 1.15  # the reference in milliseconds
FAR_CANARY = 1.35  # the canary's ratio to the reference; it doubles when cores share no cache


@dataclass(frozen=True, kw_only=True)
class Normal:
    """The machine as it was when it was anchored."""

    reference_milliseconds: float
    canary: float  # ratio of the canary's time to the reference's


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Under which pairs are taken: on what machine, with how many threads, how surely and how patiently."""

    normal: Normal
    threads: int
    within: float = WITHIN  # half of the ratio's 95 % interval, as a share of it
    patience_seconds: float = PATIENCE_SECONDS
    watch: Watch = THIS_MACHINE  # that tells whose turn it is

    @property
    def blocks(self) -> int:
        """The least, of each candidate."""
        return math.ceil(BLOCKS * self.ease)

    @property
    def quiet_blocks(self) -> int:
        """The least that are undisturbed."""
        return math.ceil(QUIET_BLOCKS * self.ease)

    @property
    def ease(self) -> float:
        """The share of the full effort that is asked for."""
        return min(1.0, WITHIN / self.within)


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Times of alternating calls in milliseconds, what disturbed them, how many were not counted."""

    candidate: Times  # (blocks, pairs of a block)
    reference: Times
    disturbances: tuple[str, ...]
    set_aside: int = 0
    doubts: tuple[str, ...] = ()  # what is unsure after as many blocks as are ever taken
    better: bool = False  # the machine is better than it was anchored
    out_of_patience: bool = False  # it is not as it was anchored, and did not come back

    @property
    def flagged(self) -> tuple[str, ...]:
        """All reasons to distrust it."""
        return self.disturbances + self.doubts

    @property
    def repeatable(self) -> bool:
        """Whether another try may find the machine undisturbed."""
        return bool(self.disturbances) and not (self.better or self.out_of_patience)

    @property
    def count(self) -> int:
        """How many pairs."""
        return self.candidate.size

    @property
    def ratio(self) -> float:
        """Of the quiet medians."""
        return quiet_ratio(self.candidate, self.reference)

    @property
    def half_width(self) -> float:
        """Half of the ratio's 95 % interval, as a share of it."""
        low, high = interval(self.candidate, self.reference)
        return (high - low) / 2 / self.ratio

    @property
    def quiet_blocks(self) -> int:
        """How many were undisturbed."""
        return int(quiet_blocks(self.reference).sum())


def take_pairs(stands: Sequence[Stand], conditions: Conditions) -> list[Pairs]:
    """Alternating timed calls until the intervals are narrow or a limit is reached; watched from outside.

    Several candidates take turns block by block, so that each meets the machine in the same states.
    """
    trays = [_Tray(stand=stand, conditions=conditions) for stand in stands]
    waited, better = 0.0, 0
    most_waiting = conditions.patience_seconds * conditions.ease * len(trays)
    pause, longest = PAUSE_SECONDS
    watch = conditions.watch
    while waiting := [tray for tray in trays if not (tray.enough() if waited > most_waiting else tray.full())]:
        for tray in waiting:
            start = watch.seconds()
            block = tray.take_block()
            unusual, slower = _unusual(block, conditions)
            if not unusual:
                tray.counted.append(block)
                continue
            tray.aside.append(block)
            tray.reason = unusual
            better += not slower
            if waited <= most_waiting:
                watch.sleep(pause)
                pause = min(2 * pause, longest)
            waited += watch.seconds() - start
        if better >= BETTER_BLOCKS:
            break
    return [tray.taken(better=better >= BETTER_BLOCKS) for tray in trays]


@dataclass(kw_only=True)
class _Tray:
    """What has been taken of one candidate."""

    stand: Stand
    conditions: Conditions
    counted: list[Block] = field(default_factory=list)
    aside: list[Block] = field(default_factory=list)
    reason: str = ""  # for setting the last one aside
    seconds: float = 0.0
    next_turn: float = 0.0

    def take_block(self) -> Block:
        """One more, not before its turn."""
        watch = self.conditions.watch
        watch.sleep(max(0.0, self.next_turn - watch.seconds()))
        start = watch.seconds()
        block = self.stand.take_block()
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
        if count >= MOST_BLOCKS * least or self.seconds > MORE_SECONDS:
            return True
        taken = _pairs(self.counted)
        return taken.quiet_blocks >= self.conditions.quiet_blocks and taken.half_width <= self.conditions.within

    def taken(self, *, better: bool) -> Pairs:
        conditions = self.conditions
        short = len(self.counted) < conditions.blocks
        used = self.counted + self.aside if short else self.counted
        taken = _pairs(used)
        far = _far_from_anchor(quiet_median(taken.reference), conditions.normal)
        reason = far or (self.reason if short else "")
        seen = load.disturbances([block.span for block in used], conditions.threads)
        return replace(
            taken,
            disturbances=(*seen, *filter(None, [reason])),
            doubts=_doubts(taken, conditions),
            set_aside=0 if short else sum(len(block.times) for block in self.aside),
            better=better,
            out_of_patience=short,
        )


def _pairs(blocks: Sequence[Block]) -> Pairs:
    times = np.stack([block.times for block in blocks])
    return Pairs(candidate=times[:, :, 0], reference=times[:, :, 1], disturbances=())


def _unusual(block: Block, conditions: Conditions) -> tuple[str, bool]:
    """How the machine differs from the anchored one (empty when it does not), and whether for the worse."""
    normal = conditions.normal
    milliseconds = float(np.median(block.times[:, 1]))
    far = _far_from_anchor(milliseconds, normal)
    if far:
        return far, milliseconds > normal.reference_milliseconds
    canary = block.canary_milliseconds / milliseconds / normal.canary
    if conditions.threads > 1 and not 1 / FAR_CANARY <= canary <= FAR_CANARY:  # one thread needs no other core
        return f"the cores exchanged data at {canary:.2f} of the anchored cost", canary > 1
    return "", False


def _far_from_anchor(reference_milliseconds: float, normal: Normal) -> str:
    share = reference_milliseconds / normal.reference_milliseconds
    if 1 / FAR_FROM_ANCHOR <= share <= FAR_FROM_ANCHOR:
        return ""
    return f"the machine ran the reference at {share:.2f} of its anchored latency"


def _doubts(pairs: Pairs, conditions: Conditions) -> tuple[str, ...]:
    reasons = []
    if pairs.quiet_blocks < conditions.quiet_blocks:
        reasons.append(f"only {pairs.quiet_blocks} of {len(pairs.candidate)} blocks were undisturbed")
    if pairs.half_width > conditions.within:
        reasons.append(f"the median is known to {pairs.half_width:.1%} only after {pairs.count} pairs")
    return tuple(reasons)


def measure(stands: Sequence[Stand], conditions: Conditions) -> list[Pairs]:
    """Warm up and take pairs; once more of those that something disturbed, and then the better of the two."""
    for stand in stands:
        stand.warm_up()
    taken = take_pairs(stands, conditions)
    again = [index for index, one in enumerate(taken) if one.repeatable]
    if again:
        second = take_pairs([stands[index] for index in again], conditions)
        for index, other in zip(again, second, strict=True):
            taken[index] = min(taken[index], other, key=lambda one: (len(one.flagged), one.half_width))
    return taken


def summarise(
    pairs: Pairs,
    *,
    anchor_milliseconds: float,
    anchor_flagged: tuple[str, ...],
    target: Target,
    size: tuple[int, int],
    environment: Mapping[str, str],
) -> Latency:
    """The record of a measurement: ratios, and milliseconds through the anchor."""
    ratio = pairs.ratio
    p90, p99 = (max(ratio, float(value)) for value in np.quantile(pairs.candidate / pairs.reference, (0.9, 0.99)))
    low, high = interval(pairs.candidate, pairs.reference)
    flagged = list(pairs.flagged)
    if anchor_flagged:
        flagged.append(f"the reference was anchored on a disturbed machine ({'; '.join(anchor_flagged)})")
    return Latency(
        p50_milliseconds=ratio * anchor_milliseconds,
        p90_milliseconds=p90 * anchor_milliseconds,
        p99_milliseconds=p99 * anchor_milliseconds,
        ci_low_milliseconds=low * anchor_milliseconds,
        ci_high_milliseconds=high * anchor_milliseconds,
        samples=pairs.count,
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        reference_milliseconds=anchor_milliseconds,
        raw_p50_milliseconds=float(np.median(pairs.candidate)),
        flagged=tuple(flagged),
        set_aside=pairs.set_aside,
        blocks=tuple(
            (round(float(one), 4), round(float(other), 4))
            for one, other in zip(np.median(pairs.candidate, 1), np.median(pairs.reference, 1), strict=True)
        ),
        environment=environment,
        target=str(target),
        height=size[0],
        width=size[1],
        scope=SCOPE,
    )
