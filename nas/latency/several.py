"""One latency from several processes, timed one after another: what is certified.

A process tells how surely its own median is known, not what the next one would find: its memory lies elsewhere, its
core may have other neighbours, and the ratio to the reference cancels a part of that only (`nas.latency.protocol`). On
a shared machine two processes gave 4.64 and 5.32 ms for one network, each known to 1.5 % and neither flagged. So the
median process is reported, between the lowest and the highest end of all their intervals; of eight or more without the
outermost, which the median of all processes surely is not among.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.latency.protocol.slowing import correction
from nas.latency.record import Latency
from nas.latency.target import Target

PROCESSES = 3
FEWEST_QUIET = 2  # from which on those that were disturbed do not count
SURE = 0.92  # that the median of all processes is between two of those that were timed, if there are so many


def measure_in_processes(measure: Callable[[], Latency], target: Target, processes: int = PROCESSES) -> Latency:
    """What `measure`, which times a network in a new process on `target`, finds in several; `pooled`.

    A GPU is timed once: one process times all that is timed on it.
    """
    return pooled([measure() for _ in range(processes_on(target, processes))])


def processes_on(target: Target, processes: int = PROCESSES) -> int:
    """In how many processes a network is timed on a target."""
    return 1 if target.on_cuda else processes


def pooled(latencies: Sequence[Latency]) -> Latency:
    """The latency of one network that was timed in one process or more, on one target at one input size.

    Its p50 is that of the median process, its interval reaches from the lowest to the highest end of theirs (of eight
    and more of all but the outermost), and its p90 and p99 are the highest. Processes that were disturbed do not count
    where two others were not. All milliseconds are by the last anchor, should that have been taken anew.
    """
    assert latencies, "a latency is pooled from one at least"
    if len(latencies) == 1:
        return latencies[0]
    quiet = [one for one in latencies if not one.flagged]
    reference = latencies[-1].reference_milliseconds
    counted = [anchored(one, reference) for one in (quiet if len(quiet) >= FEWEST_QUIET else latencies)]
    middle = sorted(counted, key=lambda one: one.p50_milliseconds)[len(counted) // 2]  # of two the slower
    pairs = sum(one.samples for one in counted)
    lows = sorted(one.ci_low_milliseconds for one in counted)
    highs = sorted(one.ci_high_milliseconds for one in counted)
    outer = _outermost(len(counted))
    return replace(
        middle,
        p90_milliseconds=max(one.p90_milliseconds for one in counted),
        p99_milliseconds=max(one.p99_milliseconds for one in counted),
        ci_low_milliseconds=lows[outer],
        ci_high_milliseconds=highs[-1 - outer],
        samples=pairs,
        ratio_low=lows[outer] / reference,
        ratio_high=highs[-1 - outer] / reference,
        raw_p50_milliseconds=statistics.median(one.raw_p50_milliseconds for one in counted),
        set_aside=sum(one.samples + one.set_aside for one in latencies) - pairs,
        blocks=tuple(block for one in counted for block in one.blocks),
        flagged=tuple(dict.fromkeys(reason for one in counted for reason in one.flagged)),
        processes_milliseconds=tuple(one.p50_milliseconds for one in counted),
    )


def anchored(latency: Latency, reference_milliseconds: float) -> Latency:
    """The latency in milliseconds by another anchor of the same reference."""
    factor = reference_milliseconds / latency.reference_milliseconds
    if factor != 1 and latency.corrected != 1:  # for another state of the machine
        seen = statistics.median(reference for _, reference in latency.blocks)
        corrected = correction(latency.ratio / latency.corrected, seen, reference_milliseconds)
        anew = corrected / latency.corrected
        factor *= anew
        latency = replace(
            latency,
            corrected=corrected,
            ratio=anew * latency.ratio,
            ratio_low=anew * latency.ratio_low,
            ratio_high=anew * latency.ratio_high,
        )
    return replace(
        latency,
        p50_milliseconds=factor * latency.p50_milliseconds,
        p90_milliseconds=factor * latency.p90_milliseconds,
        p99_milliseconds=factor * latency.p99_milliseconds,
        ci_low_milliseconds=factor * latency.ci_low_milliseconds,
        ci_high_milliseconds=factor * latency.ci_high_milliseconds,
        reference_milliseconds=reference_milliseconds,
    )


def _outermost(count: int) -> int:
    """How many of so many processes may be left out at either end, so that the median of all processes there could be
    is still surely between the others: by the binomial distribution, whatever theirs is.
    """
    for outer in range(1, count // 2):
        beyond = 2 * sum(math.comb(count, few) for few in range(outer + 1)) / 2**count
        if 1 - beyond < SURE:
            return outer - 1
    return max(0, count // 2 - 1)
