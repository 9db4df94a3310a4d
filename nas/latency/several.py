"""One latency from several processes timed one after another, as certificates use it.

One process knows its own median precisely, but not what the next process would measure: its memory lies elsewhere and
its core may have other neighbours, and the ratio to the reference cancels only a part of that (`nas.latency.protocol`).
On a shared machine, two processes measured 4.64 and 5.32 ms for one network, each to within 1.5 % and neither flagged.
So the latency of the median process is reported, with an interval from the lowest to the highest end of all their
intervals. With eight or more processes the outermost ends are left out, since the median of all possible processes
surely lies between the others.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.latency.budget import SETTLING_PROCESSES
from nas.latency.protocol.slowing import correction
from nas.latency.record import Latency
from nas.latency.target import Target

PROCESSES = 3
FEWEST_QUIET = 2  # undisturbed processes, from which on disturbed ones do not count
SURE = 0.92  # least probability that the median of all possible processes lies inside the interval


def measure_in_processes(
    measure: Callable[[], Latency],
    target: Target,
    processes: int = PROCESSES,
    *,
    leaves_open: Callable[[Latency], bool] = lambda _: False,
) -> Latency:
    """The `pooled` latency from several calls of `measure`, each of which times a network in a new process on `target`.
    As long as it `leaves_open` what has to be known and further processes may settle it, they are timed, up to
    `SETTLING_PROCESSES`.

    On a GPU there is one call, since one process times all networks there.
    """
    latencies = [measure() for _ in range(processes_on(target, processes))]
    most = processes_on(target, SETTLING_PROCESSES)
    while len(latencies) < most and leaves_open(pooled(latencies)):
        middle = sorted(latencies, key=lambda one: one.p50_milliseconds)[len(latencies) // 2]
        if not middle.flagged and leaves_open(middle):
            break  # more processes show how processes differ; each is as unsure of its own median as this one
        latencies.append(measure())
    return pooled(latencies)


def processes_on(target: Target, processes: int = PROCESSES) -> int:
    """Number of processes that a network is timed in on a target."""
    return 1 if target.on_cuda else processes


def pooled(latencies: Sequence[Latency]) -> Latency:
    """One latency of a network that was timed in one or more processes, on one target at one input size.

    Its p50 is that of the median process. Its interval reaches from the lowest to the highest end of theirs, and its
    p90 and p99 are the highest, in each case without the outermost if there are eight or more. Disturbed processes do
    not count if at least two others were undisturbed. All milliseconds use the last anchor, in case it changed.
    """
    assert latencies, "expected at least one latency to pool"
    if len(latencies) == 1:
        return latencies[0]
    quiet = [one for one in latencies if not one.flagged]
    reference = latencies[-1].reference_milliseconds
    counted = [anchored(one, reference) for one in (quiet if len(quiet) >= FEWEST_QUIET else latencies)]
    middle = sorted(counted, key=lambda one: one.p50_milliseconds)[len(counted) // 2]  # the slower of two
    pairs = sum(one.samples for one in counted)
    lows = sorted(one.ci_low_milliseconds for one in counted)
    highs = sorted(one.ci_high_milliseconds for one in counted)
    outer = _outermost(len(counted))
    return replace(
        middle,
        p90_milliseconds=sorted(one.p90_milliseconds for one in counted)[-1 - outer],
        p99_milliseconds=sorted(one.p99_milliseconds for one in counted)[-1 - outer],
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
    """The same latency in milliseconds by another anchor of the same reference."""
    factor = reference_milliseconds / latency.reference_milliseconds
    if factor != 1 and latency.corrected != 1:  # the correction was for the state of the old anchor
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
    """How many of `count` processes may be left out at either end so that the median of all possible processes still
    surely (`SURE`) lies between the others: by the binomial distribution, whatever the distribution of their latencies.
    """
    for outer in range(1, count // 2):
        beyond = 2 * sum(math.comb(count, few) for few in range(outer + 1)) / 2**count
        if 1 - beyond < SURE:
            return outer - 1
    return max(0, count // 2 - 1)
