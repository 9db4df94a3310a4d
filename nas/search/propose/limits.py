"""Limits on the size of a search's networks, whatever its budget: on a fast device only giants would fill it."""

from __future__ import annotations

from nas.latency.budget import Budget, unsettled
from nas.latency.record import Latency
from nas.search.propose.fill import WIDEST, Allows
from nas.study import Study
from nas.training.room import training_bytes
from space.architecture import Architecture
from space.count import parameters
from space.errors import BudgetError
from space.scale import NARROWEST, bisected, scale_width


def limits_of(study: Study, num_classes: int) -> Allows:
    """A check of the study's limits: parameters, and the memory for training on batches of the recipe's crops, in the
    stage of the recipe that needs most.
    """
    plan, most_bytes = study.search, study.search.most_gigabytes * 1e9

    def allows(architecture: Architecture) -> bool:
        if parameters(architecture, num_classes) > plan.most_parameters:
            return False
        return training_bytes(architecture, study.recipe, study.data.size, num_classes) <= most_bytes

    return allows


def widest(architecture: Architecture, allows: Allows) -> Architecture:
    """The architecture at the largest width factor that is allowed, at most `WIDEST`."""
    if allows(scale_width(architecture, WIDEST)):
        return scale_width(architecture, WIDEST)
    return scale_width(
        architecture, bisected(NARROWEST, WIDEST, lambda factor: allows(scale_width(architecture, factor)))
    )


def above_the_space(budget: Budget, highest: float, study: Study) -> str:
    """The message that no allowed network is slow enough to use a budget; the slowest takes `highest` milliseconds."""
    plan = study.search
    return (
        f"no allowed network is slow enough to use this budget: within the study's limits ({plan.most_parameters:,} "
        f"parameters, {plan.most_gigabytes:g} GB to train), networks take at most {highest:.2f} of {budget}; lower the "
        "budget, raise the input size, or raise search.most_parameters and search.most_gigabytes"
    )


def nothing_inside(budget: Budget, draws: int, lowest: Latency | None) -> BudgetError:
    """The error that `draws` draws in a row led to no new candidate inside a budget; `lowest` is the lowest latency
    that was timed.
    """
    seen, advice = "none could be timed", ""
    if lowest is not None:
        seen = f"the lowest took {lowest.milliseconds(budget.statistic):.2f} ms"
        advice = unsettled(lowest)
    return BudgetError(
        f"expected candidates inside {budget}, but {draws} draws in a row were over it at any width or already known; "
        f"{seen}; {advice or 'raise the budget or widen the space of the study'}"
    )
