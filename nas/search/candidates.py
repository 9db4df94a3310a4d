"""Points of a space that a sampler compares: draws, and mutations of the best ones so far.

Where the run has a latency table, hundreds of them are compared at the width that is estimated to fill the budget,
before one is measured: those that none brings inside are left out, and of the others a few numbers are told beside
their answers. On networks of one latency that were trained alike (`studies/search/camvid.csv`), parameters,
multiply-adds, depth and the stride of the logits say more about a score, after few trainings, than all answers do.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nas import samplers
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.search.sampler import MOST_TRIES, Sampler
from nas.surrogate.encoding import key
from space import Architecture, Space, depth, multiply_adds, parameters
from space.channels import last_layer
from space.choices import Ask, Choice, Genotype
from space.errors import ArchitectureError
from space.scale import NARROWEST, scale_width

DRAWS = 80
MUTATIONS = 120
MOST_CHANGES = 3  # of answers, in a mutation
FACTORS = (1.0, 4.0, 16.0)  # on the width, of which the first that is over the budget is estimated beside NARROWEST
POWER = 1.7  # of such a factor, in which latencies rise about evenly
ERROR = 1.2  # times the budget: an estimate at the narrowest width above that is believed
# Facts; no axis is called so.
PARAMETERS, MULTIPLY_ADDS, DEPTH, STRIDE = "log parameters", "log multiply-adds", "log depth", "log stride of logits"
CLASSES = 19  # of the networks whose facts are counted, which hardly depend on it

WidthOf = Callable[[Architecture], float]
"""The logarithm to base 2 of the factor on an architecture's width that fills the budget, as estimated; minus infinity
where even the narrowest is over it."""


class SpaceQuestions:
    """A space, as `nas.search.sampler` asks it."""

    def __init__(self, space: Space, rungs: tuple[float, ...], width_of: WidthOf | None) -> None:
        self.rungs = rungs
        self._space = space
        self._width_of = width_of
        self._widths: dict[tuple[tuple[str, Choice], ...], float] = {}  # estimated, by point
        self._facts: dict[tuple[tuple[str, Choice], ...], dict[str, float]] = {}  # the same

    def choose(self, ask: Ask) -> Architecture:
        """The architecture that the answers lead to."""
        return self._space.choose(ask)

    def around(self, best: Sequence[Genotype], rng: random.Random) -> list[Genotype]:
        """Draws, the best ones, which may be so elsewhere or for other budgets only, and about as many mutations of
        them as draws.
        """
        found: list[Genotype] = [*(draw(self._space, rng)[1] for _ in range(DRAWS)), *best]
        for index in range(MUTATIONS if best else 0):
            with contextlib.suppress(ArchitectureError):  # narrow ranges leave no way on from these answers
                found.append(self._mutated(best[index % len(best)], rng))
        return [each for each in found if self._width(each) > -math.inf]

    def facts(self, point: Genotype) -> dict[str, float]:
        """What is known of it at the width that is estimated to fill the budget, where there are estimates."""
        if self._width_of is None:
            return {}
        if key(point) not in self._facts:
            widest = scale_width(self._built(point), 2 ** max(self._width(point), math.log2(NARROWEST)))
            self._facts[key(point)] = facts_of(widest, self._space.size)
        return self._facts[key(point)]

    def _width(self, point: Genotype) -> float:
        """Its logarithm; minus infinity where none is inside the budget."""
        if self._width_of is None:
            return 0.0
        if key(point) not in self._widths:
            self._widths[key(point)] = self._width_of(self._built(point))
        return self._widths[key(point)]

    def _built(self, point: Genotype) -> Architecture:
        return self._space.choose(lambda name, options: point[name] if point.get(name) in options else options[0])

    def _mutated(self, parent: Genotype, rng: random.Random) -> Genotype:
        """The parent with a few other answers. What they bring along is drawn, as is what is possible no more."""
        changed = rng.sample(sorted(parent), min(rng.randint(1, MOST_CHANGES), len(parent)))
        answers: dict[str, Choice] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            others = [option for option in options if option != parent.get(name)]
            kept = parent.get(name) in options and not (name in changed and others)
            answers[name] = parent[name] if kept else rng.choice(others)
            return answers[name]

        self._space.choose(ask)
        return answers


def facts_of(architecture: Architecture, size: tuple[int, int]) -> dict[str, float]:
    """Logarithms of how large it is, how much it computes for an image of `size` (height, width), how deep it is and
    how coarse its logits are.
    """
    return {
        PARAMETERS: math.log2(parameters(architecture, CLASSES)),
        MULTIPLY_ADDS: math.log2(multiply_adds(architecture, size, CLASSES)),
        DEPTH: math.log2(1 + depth(architecture)),
        STRIDE: math.log2(last_layer(architecture.graph(CLASSES)).stride[0]),
    }


def draw(space: Space, rng: random.Random) -> tuple[Architecture, Genotype]:
    """What `Space.sample` gives, and its genotype; answers that narrow ranges leave no way on from are drawn again.

    Raises: ArchitectureError when one draw after the other leads to nothing.
    """
    reason = ""
    for _ in range(MOST_TRIES):
        answers: dict[str, Choice] = {}
        try:
            return space.choose(functools.partial(_drawn, rng, answers)), answers
        except ArchitectureError as error:
            reason = str(error)
    raise ArchitectureError(f"{reason} (so ended the last of {MOST_TRIES} draws, and all before it alike)")


def _drawn(rng: random.Random, answers: dict[str, Choice], name: str, options: Sequence[Choice]) -> Choice:
    answers[name] = rng.choice(options)
    return answers[name]


def widths_of(budget: Budget, num_classes: int, table: LatencyTable | None) -> WidthOf | None:
    """What estimates widths for a budget from a latency table alone, so that a run that goes on estimates the same."""
    if table is None:
        return None

    def width_of(architecture: Architecture) -> float:
        def estimate(factor: float) -> float:
            return table.estimate(scale_width(architecture, factor), num_classes)

        known = {NARROWEST: estimate(NARROWEST)}
        if known[NARROWEST] > ERROR * budget.milliseconds:
            return -math.inf
        for factor in FACTORS:
            known[factor] = estimate(factor)
            if known[factor] > budget.milliseconds:
                break
        near = _factor_at(budget.milliseconds, known)
        return math.log2(_factor_at(budget.milliseconds, {**known, near: estimate(near)}))

    return width_of


def _factor_at(milliseconds: float, known: Mapping[float, float]) -> float:
    """The factor at which a latency comes to `milliseconds`, between those of known factors; the nearest of them where
    it is not between any.
    """
    factors = sorted(known)
    rising = np.maximum.accumulate([known[each] for each in factors])
    return float(np.interp(milliseconds, rising, np.power(factors, POWER)) ** (1 / POWER))


def sampler_of(
    space: Space,
    *,
    kind: str,
    startup: int,
    seed: int,
    rungs: tuple[float, ...] = (1.0,),
    width_of: WidthOf | None = None,
    width_at: Callable[[float], WidthOf | None] | None = None,
) -> Sampler[Architecture]:
    """A sampler of this kind that searches a space; random until it was told of `startup` candidates. `rungs`: the
    shares of a whole training at which trainings may pause, if it is of a kind that has them go on. `width_of`: see
    `widths_of`. `width_at`: the same for a budget of so many milliseconds, where there are several.

    Raises: UserError when there is no such kind.
    """
    used = rungs if samplers.resumes(kind) else (1.0,)
    return Sampler(
        SpaceQuestions(space, used, width_of),
        lambda candidates: samplers.make(kind, seed=seed, startup=startup, candidates=candidates),
        None if width_at is None else lambda each: SpaceQuestions(space, used, width_at(each)),
    )
