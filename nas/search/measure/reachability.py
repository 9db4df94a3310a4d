"""Estimates which budgets a space can meet on a target, with how much of the space, and how long a search would take.

The estimates come from a latency table (`nas.latency.estimates.table`), which covers a thousand networks in seconds.
Those of single networks carry the error of the table.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

import space
from nas import samplers
from nas.latency.budget import Budget
from nas.runs.shares import Shares
from nas.runs.steps import rungs_for
from nas.search.propose.candidates import draw
from nas.search.propose.fill import Allows, anything
from nas.search.propose.limits import above_the_space, widest
from nas.search.propose.parts import EstimateMilliseconds
from nas.study import Study
from nas.surrogate.rungs import begun_per_training
from space import Architecture
from space.choices import Genotype
from space.errors import BudgetError
from space.scale import NARROWEST, scale_width

MEASUREMENTS_PER_CANDIDATE = 4  # on average, to solve the width for the budget and to confirm it
FEWEST = 10  # draws that a value needs to be reported
RIDGE = 1.0  # strength of the regularisation, in draws; keeps rare values near the average of their axis


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A network with its estimated milliseconds at three widths."""

    name: str
    architecture: Architecture
    genotype: Genotype
    """The answers that led to it; empty for a published network."""
    own: float
    """Milliseconds at its own width."""
    narrowest: float
    """Milliseconds at `space.scale.NARROWEST` times its width."""
    widest: float
    """Milliseconds at the widest that the study allows; at its own width if that is over the budget already."""

    def verdict(self, milliseconds: float) -> str:
        """How the network compares with a budget, in words."""
        if self.narrowest > milliseconds:
            return "over at any width"
        if self.widest < milliseconds:
            return "inside at any width"
        return "inside" if self.own <= milliseconds else "inside if narrower"


@dataclass(frozen=True, kw_only=True)
class Knob:
    """The effect of an axis on latency, all other axes being equal."""

    axis: str
    factors: tuple[tuple[str, float, int], ...]
    """For each value of the axis, fastest first: its name, its factor on latency, and the number of draws with it. The
    average of the factors over the draws is 1."""

    @property
    def spread(self) -> float:
        """The factor of the slowest value over that of the fastest."""
        return self.factors[-1][1] / self.factors[0][1]


@dataclass(frozen=True, kw_only=True)
class Reachability:
    """The estimates for the published networks of a study and for random draws of its space."""

    study: Study
    published: tuple[Reach, ...]
    draws: tuple[Reach, ...]

    @property
    def every(self) -> tuple[Reach, ...]:
        """All estimated networks."""
        return (*self.published, *self.draws)

    @property
    def lowest(self) -> Reach:
        """The fastest network, at its narrowest."""
        return min(self.every, key=lambda each: each.narrowest)

    @property
    def highest(self) -> Reach:
        """The slowest network, at its widest."""
        return max(self.every, key=lambda each: each.widest)

    def fillable(self, budget: Budget) -> float:
        """Share of the draws that can fill a budget at some width."""
        filled = [each.narrowest <= budget.milliseconds <= each.widest for each in self.draws]
        return sum(filled) / len(filled)

    def require(self) -> None:
        """Check that some budget of the study can be met and filled.

        Raises: BudgetError with the lowest or highest estimate when none can.
        """
        refused = [self.refusal(budget) for budget in self.study.asked]
        if refused[-1] is not None and all(refused):
            raise refused[-1]

    def refusal(self, budget: Budget) -> BudgetError | None:
        """Why no network can meet or fill a budget of the study; None where one can."""
        lowest, highest = self.lowest, self.highest
        if lowest.narrowest > budget.milliseconds:
            return BudgetError(
                f"expected a budget that a network can meet, got {budget}; of {len(self.every)} networks the "
                f"fastest, {lowest.name} at its narrowest, is estimated at {lowest.narrowest:.2f} ms; raise the "
                "budget, lower the input size or choose a faster target"
            )
        if highest.widest < budget.milliseconds:
            return BudgetError(
                f"expected a budget that networks can fill, got {budget}; of {len(self.every)} networks the "
                f"slowest, {highest.name} at the largest allowed width, is estimated at {highest.widest:.2f} ms; "
                f"{above_the_space(budget, highest.widest, self.study)}"
            )
        return None


def explore(
    study: Study, estimate: EstimateMilliseconds, *, samples: int, seed: int, allows: Allows = anything
) -> Reachability:
    """Estimate the study's published networks and `samples` random draws of its space, for the study's budgets. No
    network is widened beyond the limits of `allows` (`nas.search.propose.limits`).
    """
    budget = study.asked.largest  # a network over the largest budget at its own width is over the others too
    names = dict.fromkeys((*study.search.seeds, *study.search.company))
    drawing = random.Random(seed)
    searched = study.architectures()
    draws = []
    for index in range(samples):
        draws.append(_reach(f"draw {index + 1}", *draw(searched, drawing), budget, estimate, allows))
    published = [_reach(name, space.load(name), {}, budget, estimate, allows) for name in names]
    return Reachability(study=study, published=tuple(published), draws=tuple(draws))


def _reach(
    name: str,
    architecture: Architecture,
    genotype: Genotype,
    budget: Budget,
    estimate: EstimateMilliseconds,
    allows: Allows,
) -> Reach:
    own = estimate(architecture)
    # The widest is estimated only where the own width does not show already that it is over the budget.
    wide = own if own >= budget.milliseconds else estimate(widest(architecture, allows))
    return Reach(
        name=name,
        architecture=architecture,
        genotype=genotype,
        own=own,
        narrowest=estimate(scale_width(architecture, NARROWEST)),
        widest=wide,
    )


def knobs(draws: Sequence[Reach]) -> tuple[Knob, ...]:
    """Axes by their effect on latency at the drawn width, the strongest first.

    A ridge regression explains the logarithm of latency by a sum of one term per value of every axis, so that the
    effects of correlated axes are told apart. Values with fewer than `FEWEST` draws, and axes with fewer than two
    values left, are left out.
    """
    counts: dict[tuple[str, str], int] = {}
    for each in draws:
        for axis, value in each.genotype.items():
            counts[axis, str(value)] = counts.get((axis, str(value)), 0) + 1
    columns = [column for column, count in counts.items() if count >= FEWEST]
    if not columns:
        return ()
    place = {column: index for index, column in enumerate(columns)}
    present = np.zeros((len(draws), len(columns)))
    for row, each in enumerate(draws):
        for axis, value in each.genotype.items():
            if (axis, str(value)) in place:
                present[row, place[axis, str(value)]] = 1
    latency = np.log([each.own for each in draws])
    centred = present - present.mean(axis=0)
    terms = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(len(columns)), centred.T @ (latency - latency.mean()))
    by_axis: dict[str, list[tuple[str, float, int]]] = {}
    for (axis, value), term in zip(columns, terms, strict=True):
        by_axis.setdefault(axis, []).append((value, float(term), counts[axis, value]))
    found = []
    for axis, values in by_axis.items():
        if len(values) > 1:
            average = sum(term * count for _, term, count in values) / sum(count for _, _, count in values)
            factors = sorted(((value, math.exp(term - average), count) for value, term, count in values), key=_factor)
            found.append(Knob(axis=axis, factors=tuple(factors)))
    return tuple(sorted(found, key=lambda knob: -knob.spread))


def _factor(value: tuple[str, float, int]) -> float:
    return value[1]


def extremes(values: Sequence[float]) -> tuple[float, float, float]:
    """Smallest, median and largest."""
    return min(values), statistics.median(values), max(values)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """The expected duration of a search, if nothing else runs on the machine."""

    training_seconds: float
    """Duration of all training steps, one training after the other, without scoring."""
    measuring_seconds: float
    candidates: int
    """Approximate number of candidates measured; where trainings pause at rungs, more than whole trainings."""


def forecast(study: Study, training_images: int, step_seconds: float, measurement_seconds: float) -> Forecast:
    """Forecast the duration of a study's search from the seconds of a training step and of a measurement."""
    plan, epochs, budgets = study.search, study.recipe.epochs, len(study.asked)
    share = Shares.of(study, study.asked).plan
    begun = (len(plan.seeds) + share.random_trials) * budgets
    effort = begun + share.guided_trials * budgets  # in whole trainings
    rungs = rungs_for(plan, epochs) if samplers.resumes(plan.sampler) else (epochs,)
    candidates = max(begun, round(effort * begun_per_training([rung / epochs for rung in rungs])))
    pruned = min(plan.pruned, len(plan.company)) * budgets
    trained = (effort + len(plan.company)) * epochs
    trained += (plan.finalists * budgets + len(plan.company) + pruned) * plan.longest_finish + sum(plan.tried_epochs)
    steps = max(1, training_images // study.recipe.batch_size)
    return Forecast(
        training_seconds=trained * steps * step_seconds,
        measuring_seconds=(MEASUREMENTS_PER_CANDIDATE * candidates + len(plan.company)) * measurement_seconds,
        candidates=candidates,
    )
