"""Times the fastest networks of a space before anything is trained, to find out which budgets can be met."""

from __future__ import annotations

import math

import space
from nas.errors import UnmeasuredError
from nas.latency.budget import Budget, Budgets, unsettled
from nas.latency.careful import time_each
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.terminal import ProgressLine
from space.errors import BudgetError
from space.scale import NARROWEST, scale_width

SMALLEST = ("ndnet45-fcn32", "swiftnet-rn18", "erfnet-encoder")
MOST_BUDGETS = 5  # in a frontier
LEAST_RATIO = 1.25  # between neighbouring budgets: closer ones would be filled by nearly the same networks


class Narrowest:
    """The narrowest networks of a space on a target, timed on first use."""

    def __init__(self, meter: Measures, within: float, progress: ProgressLine) -> None:
        self._meter = meter
        self._within = within
        self._progress = progress
        self._found: list[Latency] | None = None

    def require(self, budget: Budget, target: Target) -> None:
        """Check that a budget can be met. Latencies from a busy machine do not prove that it cannot: they are measured
        once more, and if the machine is still busy, the error says so.

        Raises: BudgetError with the lowest latency reached.
        """
        for anew in (False, True):
            latencies = self.latencies(anew=anew)
            if not latencies:
                return  # candidates will show whether the budget can be met
            lowest = min(latencies, key=lambda latency: latency.milliseconds(budget.statistic))
            milliseconds = lowest.milliseconds(budget.statistic)
            if all(budget.refutes(latency) for latency in latencies):
                raise BudgetError(
                    f"expected a budget that {target} can meet, got {budget}; the narrowest networks of the space take "
                    f"{milliseconds:.2f} ms here; raise the budget or lower the input size"
                )
            if any(budget.verdict(each) != "FAIL" and (budget.admits(each) or not each.flagged) for each in latencies):
                return
        disturbed = lowest if lowest.flagged else next(latency for latency in latencies if latency.flagged)
        raise BudgetError(
            f"expected a machine quiet enough to tell whether {target} can meet {budget}; the narrowest networks of "
            f"the space took {milliseconds:.2f} ms, but {unsettled(disturbed)}"
        )

    def refutes(self, budget: Budget) -> bool:
        """Whether all of these networks are surely over a budget."""
        latencies = self.latencies()
        return bool(latencies) and all(budget.refutes(latency) for latency in latencies)

    def lowest(self, budget: Budget) -> float | None:
        """Milliseconds of the fastest of these networks, in the statistic of a budget; None where none can be timed."""
        return min((each.milliseconds(budget.statistic) for each in self.latencies()), default=None)

    def latencies(self, *, anew: bool = False) -> list[Latency]:
        """The latencies of the networks that can be timed; `anew` measures them again."""
        if self._found is None or anew:
            smallest = [scale_width(space.load(name), NARROWEST) for name in SMALLEST]
            with self._progress.over("the narrowest networks timed in turns", 0):
                found = time_each(self._meter, smallest, within=self._within)
            self._found = [each for each in found if not isinstance(each, UnmeasuredError)]
        return self._found


def frontier(largest: Budget, fastest: float | None) -> Budgets:
    """Up to five budgets that divide the range from the milliseconds of the `fastest` network to `largest` by equal
    ratios, rounded to two digits; fewer where the ratio would fall below `LEAST_RATIO`.

    Raises: BudgetError when there is no room for a second budget.
    """
    room = 0.0 if fastest is None else math.log(largest.milliseconds / fastest)
    count = min(MOST_BUDGETS, int(room / math.log(LEAST_RATIO)))
    if count < 2:
        seen = "nothing could be timed" if fastest is None else f"the fastest network takes {fastest:.2f} ms already"
        raise BudgetError(f"expected a budget with room for smaller ones below it, got {largest}; {seen}; raise it")
    ratio = math.exp(room / count)
    below = [float(f"{largest.milliseconds / ratio**power:.2g}") for power in range(count - 1, 0, -1)]
    found = [Budget(milliseconds=milliseconds, statistic=largest.statistic) for milliseconds in below]
    return Budgets(each=(*found, largest))
