"""Is a budget within reach of a space on a target, by how much of it, and how long would the search take?

Everything but the forecast is measured: published networks and random draws, as they are and at the narrowest width
that a search would try.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import space
from nas.search.fill import NARROWEST
from nas.study import Study
from nas.training import Recipe
from space import Architecture
from space.errors import BudgetError
from space.latency import Budget, Latency
from space.scale import scale_width
from space.search_space import Genotype

Measure = Callable[[Architecture], Latency]
Progress = Callable[[int, int], None]  # measurements done, and to do

TOO_LARGE = 2.0  # budgets: what would take longer even at the best throughput seen is not timed, it is over anyway
MEASUREMENTS_PER_CANDIDATE = 4  # to solve its width for the budget; six at most
TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Reach:
    """A network at its own width and at the narrowest; `full` is None when it is too large to be worth timing."""

    name: str
    architecture: Architecture
    genotype: Genotype
    full: Latency | None
    narrowest: Latency


@dataclass(frozen=True, kw_only=True)
class Knob:
    """Median latency, at the narrowest width, of the draws that share a value of an axis: (value, ms, draws)."""

    axis: str
    medians: tuple[tuple[str, float, int], ...]

    @property
    def spread(self) -> float:
        """The slowest value over the fastest."""
        milliseconds = [median for _, median, _ in self.medians]
        return max(milliseconds) / min(milliseconds)


@dataclass(frozen=True, kw_only=True)
class Reachability:
    """What was measured, for a budget."""

    budget: Budget
    published: tuple[Reach, ...]
    draws: tuple[Reach, ...]
    seconds_per_measurement: float

    @property
    def lowest(self) -> tuple[str, float]:
        """Name and milliseconds of the fastest network that was measured."""
        each = min((*self.published, *self.draws), key=lambda reach: self.milliseconds(reach.narrowest))
        return each.name, self.milliseconds(each.narrowest)

    def milliseconds(self, latency: Latency | None) -> float:
        """The statistic that the budget bounds; infinite for what was too large to time."""
        return math.inf if latency is None else latency.milliseconds(self.budget.statistic)

    def share(self, latencies: Sequence[Latency | None]) -> float:
        """How many of some latencies are inside the budget, as a fraction."""
        inside = sum(self.milliseconds(latency) <= self.budget.milliseconds for latency in latencies)
        return inside / len(latencies)

    def require(self) -> None:
        """Raises: BudgetError with the lowest latency reached when nothing is inside the budget."""
        name, lowest = self.lowest
        if lowest > self.budget.milliseconds:
            every = (*self.published, *self.draws)
            raise BudgetError(
                f"expected a budget that something can meet, got {self.budget}; of {len(every)} networks at their "
                f"narrowest the fastest, {name}, takes {lowest:.2f} ms; raise the budget, lower the input size or "
                "choose a faster target"
            )


def explore(
    study: Study, budget: Budget, measure: Measure, num_classes: int, *, samples: int, seed: int, progress: Progress
) -> Reachability:
    """Measure the study's published networks and `samples` random draws of its space."""
    names = dict.fromkeys((*study.search.seeds, *study.search.company))
    networks: list[tuple[str, Architecture, Genotype]] = [(name, space.load(name), {}) for name in names]
    drawing = random.Random(seed)
    searched = study.architectures()
    for index in range(samples):
        drawn = searched.sample(drawing)
        networks.append((f"draw {index + 1}", drawn, searched.genotype(drawn)))
    reaches: list[Reach] = []
    throughput = 0.0  # multiply-adds per millisecond, the best seen
    begun, measurements = time.perf_counter(), 0
    for index, (name, architecture, genotype) in enumerate(networks):
        narrowest = measure(scale_width(architecture, NARROWEST))
        multiply_adds = space.multiply_adds(architecture, study.data.size, num_classes)
        full = None
        if index < len(names) or multiply_adds <= TOO_LARGE * budget.milliseconds * throughput:
            full = measure(architecture)
            throughput = max(throughput, multiply_adds / full.p50_milliseconds)
        measurements += 1 + (full is not None)
        reaches.append(Reach(name=name, architecture=architecture, genotype=genotype, full=full, narrowest=narrowest))
        progress(index + 1, len(networks))
    return Reachability(
        budget=budget,
        published=tuple(reaches[: len(names)]),
        draws=tuple(reaches[len(names) :]),
        seconds_per_measurement=(time.perf_counter() - begun) / measurements,
    )


def knobs(reachability: Reachability, fewest: int = 2) -> tuple[Knob, ...]:
    """Axes by how much the latency of draws differs between their values, the widest first.

    At the narrowest width: what a choice costs there, no width gives back. Values that fewer than `fewest` draws
    have, and axes with fewer than two values left, are left out.
    """
    timed = [(each.genotype, reachability.milliseconds(each.narrowest)) for each in reachability.draws]
    found = []
    for axis in dict.fromkeys(name for genotype, _ in timed for name in genotype):
        by_value: dict[str, list[float]] = {}
        for genotype, milliseconds in timed:
            if axis in genotype:
                by_value.setdefault(str(genotype[axis]), []).append(milliseconds)
        medians = [(value, statistics.median(taken), len(taken)) for value, taken in by_value.items()]
        kept = sorted((each for each in medians if each[2] >= fewest), key=lambda each: each[1])
        if len(kept) > 1:
            found.append(Knob(axis=axis, medians=tuple(kept)))
    return tuple(sorted(found, key=lambda knob: -knob.spread))


def training_step_seconds(
    architecture: Architecture, recipe: Recipe, size: tuple[int, int], num_classes: int, device: str
) -> float:
    """Duration of one training step on invented pictures at the recipe's batch and crop; the best of a few."""
    import torch
    import torch.nn.functional as F

    from nas.latency import lane

    height, width = (min(crop, length) for crop, length in zip(recipe.crop or size, size, strict=True))
    network = architecture.build(num_classes).to(device)
    images = torch.randn(recipe.batch_size, 3, height, width, device=device)
    labels = torch.randint(num_classes, (recipe.batch_size, height, width), device=device)
    durations = []
    for _ in range(1 + TIMED_STEPS):
        with lane.training_step():
            start = time.perf_counter()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            float(loss.detach())  # waits for the GPU
            durations.append(time.perf_counter() - start)
    return min(durations[1:])


def forecast_seconds(
    study: Study, training_images: int, step_seconds: float, measurement_seconds: float
) -> tuple[float, float]:
    """Seconds of training and of measuring if no candidate is stopped early, one after the other."""
    plan = study.search
    candidates = len(plan.seeds) + plan.random_trials + plan.guided_trials
    epochs = (candidates + len(plan.company)) * study.recipe.epochs
    epochs += (plan.finalists + len(plan.company)) * plan.finish_epochs
    steps = max(1, training_images // study.recipe.batch_size)
    measuring = (MEASUREMENTS_PER_CANDIDATE * candidates + len(plan.company)) * measurement_seconds
    return epochs * steps * step_seconds, measuring
