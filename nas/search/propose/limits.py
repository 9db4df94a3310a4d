"""How large the networks of a search may become, whatever its budget: a fast device would be filled by giants."""

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
    """The limits of a study: parameters, and what training on batches of its recipe's crops takes of memory, in the
    stage that takes most.
    """
    plan, most_bytes = study.search, study.search.most_gigabytes * 1e9

    def allows(architecture: Architecture) -> bool:
        if parameters(architecture, num_classes) > plan.most_parameters:
            return False
        return training_bytes(architecture, study.recipe, study.data.size, num_classes) <= most_bytes

    return allows


def widest(architecture: Architecture, allows: Allows) -> Architecture:
    """The architecture at the largest factor on its width that is tried and allowed."""
    if allows(scale_width(architecture, WIDEST)):
        return scale_width(architecture, WIDEST)
    return scale_width(
        architecture, bisected(NARROWEST, WIDEST, lambda factor: allows(scale_width(architecture, factor)))
    )


def above_the_space(budget: Budget, highest: float, study: Study) -> str:
    """That a budget is more than networks can use whose slowest takes `highest` milliseconds, and what to do."""
    plan = study.search
    return (
        f"this budget is above what the space can use: as wide as the study lets them become ({plan.most_parameters:,} "
        f"parameters, {plan.most_gigabytes:g} GB to train), networks take at most {highest:.2f} of {budget}; lower the "
        "budget, raise the input size, or raise search.most_parameters and search.most_gigabytes"
    )


def nothing_inside(budget: Budget, draws: int, lowest: Latency | None) -> BudgetError:
    """That of so many draws in a row none led to a new candidate inside a budget, and what to do; `lowest`: of all that
    were timed.
    """
    seen, advice = "none could be timed", ""
    if lowest is not None:
        seen = f"the lowest took {lowest.milliseconds(budget.statistic):.2f} ms"
        advice = unsettled(lowest)
    return BudgetError(
        f"expected candidates inside {budget}, but {draws} draws in a row were over it at any width or known already; "
        f"{seen}; {advice or 'raise the budget or widen the space of the study'}"
    )
