"""How many channels of each group stay, so that a measured latency meets a budget.

Channels are put in one order over all groups: those whose importance per multiply-add is lowest go first, and no
group falls below an eighth before all others have. A prefix of that order is a candidate; its length is found by
bisection on measured latencies, never on an estimate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pruning.importance import Scores
from pruning.surgery import Cutter, Mask
from space.architecture import Architecture
from space.count import multiply_adds
from space.errors import BudgetError

FLOOR = 8  # a group keeps at least 1/FLOOR of its channels until every group is there
MOST_MEASUREMENTS = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class Allocation:
    """Which channels stay, and what that measured."""

    keep: Mask
    architecture: Architecture
    milliseconds: float
    measurements: int


def allocate(
    cutter: Cutter,
    scores: Scores,
    *,
    measure: Callable[[Architecture], float],
    budget_milliseconds: float,
    size: tuple[int, int],
    round_to: int = 8,
    tolerance: float = 0.03,
) -> Allocation:
    """Cut as little as brings the measured latency inside the budget.

    `measure` gives the milliseconds of an architecture on the target. Stops early once the latency is within
    `tolerance` below the budget. Counts are rounded up to multiples of `round_to` in groups of at least twice that.

    Raises: BudgetError with the lowest latency reached when cutting everything that can be cut is not enough.
    """
    order = removal_order(cutter, scores, size)

    def candidate(length: int) -> tuple[Mask, Architecture]:
        keep = cutter.everything.copy()
        keep[order[:length]] = False
        keep = _rounded(cutter, scores, keep, round_to)
        return keep, cutter.narrowed(cutter.counts(keep))

    timings: dict[str, float] = {}

    def timed(architecture: Architecture) -> float:
        if architecture.key not in timings:
            timings[architecture.key] = measure(architecture)
        return timings[architecture.key]

    def allocation(length: int) -> Allocation:
        keep, architecture = candidate(length)
        milliseconds = timed(architecture)
        return Allocation(
            keep=keep, architecture=architecture, milliseconds=milliseconds, measurements=len(timings)
        )

    best = allocation(0)
    if best.milliseconds <= budget_milliseconds:
        return best
    whole = best.milliseconds
    smallest = allocation(len(order))
    if smallest.milliseconds > budget_milliseconds:
        raise BudgetError(
            f"expected a budget that pruning can reach, got {budget_milliseconds:g} ms; the whole network takes "
            f"{whole:.2f} ms and with one channel per group {smallest.milliseconds:.2f} ms; "
            "raise the budget, lower the input size or start from a smaller network"
        )
    inside, best, outside = len(order), smallest, 0
    while len(timings) < MOST_MEASUREMENTS and inside - outside > 1:
        if best.milliseconds >= budget_milliseconds * (1 - tolerance):
            break
        middle = (inside + outside) // 2
        trial = allocation(middle)
        if trial.milliseconds <= budget_milliseconds:
            inside, best = middle, trial
        else:
            outside = middle
    return best


def removal_order(cutter: Cutter, scores: Scores, size: tuple[int, int]) -> NDArray[np.int64]:
    """Channels in the order in which they go; one per group is not in it, so that no layer vanishes."""
    costs = channel_costs(cutter, size)
    worth = np.full(len(scores), np.inf)
    protected = np.zeros(len(scores), dtype=bool)
    never = np.zeros(len(scores), dtype=bool)
    for name in cutter.map.names:
        members = cutter.map.members(name)
        present = members[cutter.everything[members]]
        worth[present] = scores[present] / costs[name]
        best_first = present[np.argsort(-scores[present], kind="stable")]
        protected[best_first[: math.ceil(len(present) / FLOOR)]] = True
        never[best_first[:1]] = True
    removable = np.flatnonzero(np.isfinite(worth) & ~never)
    return removable[np.lexsort((worth[removable], protected[removable]))]


def channel_costs(cutter: Cutter, size: tuple[int, int]) -> dict[str, float]:
    """Multiply-adds (at least 1) that one channel of each group saves at input `size` (height, width)."""
    counts = cutter.counts(cutter.everything)
    whole = multiply_adds(cutter.architecture, size, cutter.num_classes)
    costs = {}
    for name, count in counts.items():
        fewer = max(1, count // 2)
        narrowed = cutter.narrowed(counts | {name: fewer})
        saved = whole - multiply_adds(narrowed, size, cutter.num_classes)
        costs[name] = max(1.0, saved / max(1, count - fewer))
    return costs


def _rounded(cutter: Cutter, scores: Scores, keep: Mask, round_to: int) -> Mask:
    """Give channels back, best first, until each group's count is a multiple of `round_to`."""
    result = keep.copy()
    for name, full in zip(cutter.map.names, cutter.map.counts, strict=True):
        if full < 2 * round_to:
            continue
        members = cutter.map.members(name)
        kept = int(keep[members].sum())
        wanted = min(math.ceil(kept / round_to) * round_to, int(cutter.everything[members].sum()))
        gone = members[cutter.everything[members] & ~keep[members]]
        back = gone[np.argsort(-scores[gone], kind="stable")][: wanted - kept]
        result[back] = True
    return result


