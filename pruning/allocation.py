"""How many channels of each group stay, and which blocks, so that a measured latency meets a budget.

What to give up is a knapsack (`pruning.knapsack`): least damage for a latency. It is filled by estimates, and an
estimate is not a measurement: the result is measured, the estimates are corrected by what came out, and the knapsack is
filled again, until the measured latency is inside the budget and uses nearly all of it.
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

FULL_ENOUGH = 0.97  # of the budget
MOST_MEASUREMENTS = 12
CLOSE = 1.002  # estimates that no cut tells apart
LOWER = 0.9  # times the estimate that was asked for, where what came out cannot be timed
MOST_STEPS = 30  # cuts looked at, some of them measured before

MeasureArchitecture = Callable[[Architecture], float]
"""Milliseconds of an architecture on the target; infinite where it cannot be timed there."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Allocation:
    """Which channels stay, which blocks go, and what the network that is left measured."""

    keep: Mask
    """Of the channels of the network that is cut, those of removed blocks included."""
    blocks: frozenset[str]
    """That are removed."""
    architecture: Architecture
    """What is left."""
    milliseconds: float
    """It measured."""
    damage: float
    measurements: int
    """How many it took."""


def require_reachable(
    cutter: Cutter,
    *,
    estimate: EstimateGraph,
    measure: MeasureArchitecture,
    budget_milliseconds: float,
    depth: bool = True,
) -> None:
    """Measure the network cut as far as it goes, blocks included where `depth` may go, until a cut is inside.

    One channel each is not always the fastest: some runtimes take longer for it than for a whole vector of them.

    Raises: BudgetError with the lowest latency when none is inside the budget.
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
    """Give up as little as brings the measured latency inside the budget.

    `estimate` gives the milliseconds of a graph at given widths, `measure` those of an architecture on the target;
    within a group, `scores` decide which channels go. Stops when the latency is inside the budget and uses
    `full_enough` of it, or after MOST_MEASUREMENTS.

    Raises: BudgetError with the lowest latency that a cut measured when none was inside.
    """
    knapsack = Knapsack(cutter, damage, estimate)
    cut = whole = knapsack.whole()
    measured = {cut.key: measure(cutter.architecture)}
    whole_fits = measured[cut.key] <= budget_milliseconds
    best = cut if whole_fits else None
    aim = budget_milliseconds * (1 + full_enough) / 2
    inside, outside = 0.0, math.inf  # estimates that were asked for
    for _ in range(MOST_STEPS):
        if whole_fits or (best is not None and measured[best.key] >= full_enough * budget_milliseconds):
            break
        if outside < CLOSE * inside:  # nothing lies in between
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
    reached = f"cut as far as it goes the network takes {lowest:.4g} ms"
    return BudgetError(
        f"expected a budget that pruning can reach, this one leaves it {budget_milliseconds:.4g} ms; "
        f"{'no cut of the network can be timed' if math.isinf(lowest) else reached}; raise the budget, lower the input "
        "size or start from a smaller network"
    )
