"""Is each budget within reach of a space on a target, by how much of it, and how long would the search take?

Answered from a latency table (`nas.latency.estimates.table`): a thousand networks are estimated in seconds. What is
said about single networks is an estimate; the table's error goes with it.
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
from nas.search.propose.fill import Allows, EstimateMilliseconds, anything
from nas.search.propose.limits import above_the_space, widest
from nas.study import Study
from nas.surrogate.rungs import begun_per_training
from space import Architecture
from space.choices import Genotype
from space.errors import BudgetError
from space.scale import NARROWEST, scale_width

MEASUREMENTS_PER_CANDIDATE = 4  # on average, to solve its width for the budget and confirm it
FEWEST = 10  # draws with a value, below which nothing is said about it
RIDGE = 1.0  # in draws: what keeps rare values near the axis' average


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A network and its estimated milliseconds: at its own width, and at the narrowest and the widest tried."""

    name: str
    architecture: Architecture
    genotype: Genotype
    """The answers that led to it; empty for a published network."""
    own: float
    narrowest: float
    """At `space.scale.NARROWEST` times its width."""
    widest: float
    """As wide as the study lets it become, or at its own width where that is over the budget already."""

    def verdict(self, milliseconds: float) -> str:
        """Where it stands against a budget."""
        if self.narrowest > milliseconds:
            return "over at any width"
        if self.widest < milliseconds:
            return "inside at any width"
        return "inside" if self.own <= milliseconds else "inside if narrower"


@dataclass(frozen=True, kw_only=True)
class Knob:
    """What an axis does to latency, all other axes being equal."""

    axis: str
    factors: tuple[tuple[str, float, int], ...]
    """Of each value: its name, what it multiplies latency by, and how many draws have it; the fastest first. The
    factors' average over the draws is 1."""

    @property
    def spread(self) -> float:
        """The slowest value over the fastest."""
        return self.factors[-1][1] / self.factors[0][1]


@dataclass(frozen=True, kw_only=True)
class Reachability:
    """What was estimated, for each budget of a study."""

    study: Study
    published: tuple[Reach, ...]
    draws: tuple[Reach, ...]

    @property
    def every(self) -> tuple[Reach, ...]:
        """All networks that were estimated."""
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
        """Share of the draws that some width brings to a budget of the study."""
        filled = [each.narrowest <= budget.milliseconds <= each.widest for each in self.draws]
        return sum(filled) / len(filled)

    def require(self) -> None:
        """Raises: BudgetError with the lowest or highest latency reached when every budget is outside of that."""
        refused = [self.refusal(budget) for budget in self.study.asked]
        if refused[-1] is not None and all(refused):
            raise refused[-1]

    def refusal(self, budget: Budget) -> BudgetError | None:
        """Why nothing meets a budget of the study, or fills it; None where something does."""
        lowest, highest = self.lowest, self.highest
        if lowest.narrowest > budget.milliseconds:
            return BudgetError(
                f"expected a budget that something can meet, got {budget}; of {len(self.every)} networks the "
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
    """Estimate the study's published networks and `samples` random draws of its space, against the study's budgets.
    Nothing is widened beyond what `allows` lets through (`nas.search.propose.limits`).
    """
    budget = study.asked.largest  # what is over it at its own width is over the others too
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
    # Only where the own width does not tell already on which side of the budget the widest is.
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
    """Axes by how much they change latency at the drawn width, the strongest first.

    The logarithm of latency is explained by a sum of one term per value of every axis (ridge regression), so that what
    goes along with an axis is not taken for it. Values that fewer than `FEWEST` draws have, and axes with fewer than
    two values left, are left out.
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
    """What a search is expected to take, if nothing runs beside it."""

    training_seconds: float
    """Of steps, one training after the other; scoring comes on top."""
    measuring_seconds: float
    candidates: int
    """How many are measured, about: where they pause at rungs, more than are trained whole for the same effort."""


def forecast(study: Study, training_images: int, step_seconds: float, measurement_seconds: float) -> Forecast:
    """What a study takes, from what a training step and a measurement take."""
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
