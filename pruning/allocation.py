"""Decides how many channels of each group to keep, and which blocks, so that the measured latency meets a budget.

What to cut is a knapsack problem (`pruning.knapsack`): the least damage for a latency. It is solved with estimated
latencies. The result is measured, the target for the estimate is corrected by the ratio of the two, and the problem is
solved again, until the measured latency is inside the budget and uses nearly all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pruning.damage import Damage
from pruning.depth import removable_blocks
from pruning.importance import ChannelScores
from pruning.knapsack import EstimateGraph, Knapsack
from pruning.surgery import Cutter, Mask
from space.architecture import Architecture
from space.errors import BudgetError

FULL_ENOUGH = 0.97  # share of the budget that a cut should use
MOST_MEASUREMENTS = 12
CLOSE = 1.002  # ratio of target estimates between which no other cut can be expected
LOWER = 0.9  # factor on the target estimate after a cut that cannot be timed
MOST_STEPS = 30  # cuts tried, some of which have been measured before

MeasureArchitecture = Callable[[Architecture], float]
"""Milliseconds of an architecture on the target; infinite if it cannot be timed there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Allocation:
    """The channels to keep, the blocks to remove, and the measured latency of the resulting network."""

    keep: Mask
    """Channels to keep, over the channels of the network before the cut, including those of removed blocks."""
    blocks: frozenset[str]
    """Names of the blocks to remove."""
    architecture: Architecture
    """The resulting architecture."""
    milliseconds: float
    """Measured latency of the resulting architecture."""
    damage: float
    """Estimated damage of the cut, in the unit of `pruning.damage`."""
    measurements: int
    """Number of measurements taken."""


def require_reachable(
    cutter: Cutter,
    *,
    estimate: EstimateGraph,
    measure: MeasureArchitecture,
    budget_milliseconds: float,
    depth: bool = True,
) -> None:
    """Check that the budget can be reached: measure the smallest cuts until one is inside the budget.

    The cuts keep 1, 4 or 16 channels in every group and, with `depth`, no removable block. A single channel is not
    always the fastest: some runtimes take longer for one than for a whole vector of channels.

    Raises: BudgetError with the lowest latency measured when none is inside the budget.
    """
    knapsack = Knapsack(cutter, Damage(groups={}, blocks={}), estimate)
    blocks = frozenset(removable_blocks(cutter.architecture) if depth else ())
    measured = []
    for cut in sorted((knapsack.everywhere(count, blocks) for count in (1, 4, 16)), key=knapsack.milliseconds):
        measured.append(measure(knapsack.architecture(cut)))
        if measured[-1] <= budget_milliseconds:
            return
    raise _unreachable(budget_milliseconds, min(measured))


def allocate(
    cutter: Cutter,
    scores: ChannelScores,
    damage: Damage,
    *,
    estimate: EstimateGraph,
    measure: MeasureArchitecture,
    budget_milliseconds: float,
    full_enough: float = FULL_ENOUGH,
) -> Allocation:
    """Find the cut of least damage whose measured latency is inside the budget.

    `estimate` gives the milliseconds of a graph at given widths, `measure` those of an architecture on the target.
    Within a group, `scores` decide which channels to cut. Stops when a latency is inside the budget and uses at least
    the share `full_enough` of it, or after MOST_MEASUREMENTS.

    Raises: BudgetError with the lowest latency measured when no cut was inside the budget.
    """
    knapsack = Knapsack(cutter, damage, estimate)
    cut = whole = knapsack.whole()
    measured = {cut.key: measure(cutter.architecture)}
    whole_fits = measured[cut.key] <= budget_milliseconds
    best = cut if whole_fits else None
    aim = budget_milliseconds * (1 + full_enough) / 2
    inside, outside = 0.0, math.inf  # target estimates whose cuts measured inside and outside the budget
    for _ in range(MOST_STEPS):
        if whole_fits or (best is not None and measured[best.key] >= full_enough * budget_milliseconds):
            break
        if outside < CLOSE * inside:  # no other cut lies in between
            break
        taken = measured[cut.key]
        wanted = LOWER * outside if math.isinf(taken) else aim * knapsack.milliseconds(cut) / taken
        if not inside < wanted < outside:
            wanted = math.sqrt(max(inside, wanted / 2) * min(outside, wanted * 2))
        cut = knapsack.fill(cut, wanted)
        if cut.key not in measured:
            if len(measured) == MOST_MEASUREMENTS:
                break
            measured[cut.key] = measure(knapsack.architecture(cut))
        if measured[cut.key] > budget_milliseconds:
            outside = min(outside, wanted)
            continue
        inside = max(inside, wanted)
        if best is None or knapsack.damage(cut) < knapsack.damage(best):
            best = cut
    if best is None:
        cuts = [taken for key, taken in measured.items() if key != whole.key]
        raise _unreachable(budget_milliseconds, min(cuts, default=measured[whole.key]))
    return Allocation(
        keep=knapsack.mask(best, scores),
        blocks=best.blocks,
        architecture=knapsack.architecture(best),
        milliseconds=measured[best.key],
        damage=knapsack.damage(best),
        measurements=len(measured),
    )


def _unreachable(budget_milliseconds: float, lowest: float) -> BudgetError:
    reached = f"the fastest cut that was measured takes {lowest:.4g} ms"
    return BudgetError(
        f"expected a budget that pruning can reach, got one that leaves the network {budget_milliseconds:.4g} ms; "
        f"{'no cut of the network can be timed' if math.isinf(lowest) else reached}; raise the budget, lower the input "
        "size or start from a smaller network"
    )
