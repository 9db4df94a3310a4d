"""How many channels of each group stay, so that a measured latency meets a budget.

Channels are put in one order over all groups: those whose importance per multiply-add is lowest go first, and no
group falls below an eighth before all others have. A prefix of that order is a candidate; its length is found by
bisection on measured latencies, never on an estimate. Latency need not fall evenly: whatever is returned was itself
measured inside the budget, and where it falls by a step the channels on either side of the step are weighed apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pruning.importance import Scores
from pruning.surgery import Cutter, Mask
from space.architecture import Architecture
from space.count import graph_multiply_adds
from space.errors import BudgetError

FLOOR = 8  # a group keeps at least 1/FLOOR of its channels until every group is there
MOST_MEASUREMENTS = 16
MOST_STEPS = 60  # candidates looked at, most of them measured before


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
    costs = channel_costs(cutter, size)
    order = removal_order(cutter, scores, costs)
    trials = _Trials(cutter, scores, measure, round_to)
    whole = trials.without(order[:0])
    if whole.milliseconds <= budget_milliseconds:
        return whole
    best = trials.without(order)
    if best.milliseconds > budget_milliseconds:
        raise BudgetError(
            f"expected a budget that pruning can reach, got {budget_milliseconds:g} ms; the whole network takes "
            f"{whole.milliseconds:.4g} ms and cut as far as it goes {best.milliseconds:.4g} ms; "
            "raise the budget, lower the input size or start from a smaller network"
        )
    pinned, group_of_channel = order[:0], cutter.map.group_of_channel
    saved = np.cumsum([0.0, *(costs[cutter.map.names[group]] for group in group_of_channel[order])])
    inside, outside = len(order), 0
    for _ in range(MOST_STEPS):
        if best.milliseconds >= budget_milliseconds * (1 - tolerance) or trials.count >= MOST_MEASUREMENTS:
            break
        if inside - outside > 1:
            half = (saved[inside] + saved[max(outside, 0)]) / 2  # in multiply-adds, which latency follows roughly
            middle = int(np.clip(np.searchsorted(saved, half), outside + 1, inside - 1))
            trial = trials.without(np.concatenate([pinned, order[:middle]]))
            if trial.milliseconds <= budget_milliseconds:
                inside, best = middle, trial
            else:
                outside = middle
        elif inside > 0:
            # One channel more of this group is too slow by a whole step of the target. Leave the group as it is and
            # see how many channels of the others fit into the rest of the budget.
            gone = order[:inside]
            pinned = np.union1d(pinned, gone[group_of_channel[gone] == group_of_channel[gone[-1]]])
            outside = -1
        else:
            break
    return replace(best, measurements=trials.count)


class _Trials:
    """Candidates and their latencies; the same architecture is measured once."""

    def __init__(self, cutter: Cutter, scores: Scores, measure: Callable[[Architecture], float], round_to: int) -> None:
        self.cutter = cutter
        self.scores = scores
        self.measure = measure
        self.round_to = round_to
        self.milliseconds: dict[str, float] = {}

    @property
    def count(self) -> int:
        """Measurements so far."""
        return len(self.milliseconds)

    def without(self, gone: NDArray[np.int64]) -> Allocation:
        """What is left without these channels, but for those that rounding gives back."""
        keep = self.cutter.everything.copy()
        keep[gone] = False
        keep = _rounded(self.cutter, self.scores, keep, self.round_to)
        architecture = self.cutter.narrowed(self.cutter.counts(keep))
        if architecture.key not in self.milliseconds:
            self.milliseconds[architecture.key] = self.measure(architecture)
        return Allocation(
            keep=keep,
            architecture=architecture,
            milliseconds=self.milliseconds[architecture.key],
            measurements=self.count,
        )


def removal_order(cutter: Cutter, scores: Scores, costs: Mapping[str, float]) -> NDArray[np.int64]:
    """Channels in the order in which they go, least score per cost (by group) first; the best of each group is not
    in it, so that no layer vanishes.
    """
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

    def cost(narrowed: Mapping[str, int]) -> int:
        return graph_multiply_adds(cutter.graph, cutter.map.widths(cutter.graph, narrowed), size)

    whole = cost(counts)
    costs = {}
    for name, count in counts.items():
        fewer = max(1, count // 2)
        costs[name] = max(1.0, (whole - cost(counts | {name: fewer})) / max(1, count - fewer))
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
