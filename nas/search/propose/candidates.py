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
from dataclasses import dataclass

import numpy as np

from nas import samplers
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.search.propose.sampler import MOST_TRIES, Sampler
from nas.surrogate.encoding import key
from space import Architecture, Space, depth, multiply_adds, parameters
from space.choices import Ask, Choice, Genotype
from space.errors import ArchitectureError
from space.scale import NARROWEST, scale_width

DRAWS = 80
MUTATIONS = 120
MOST_CHANGES = 3  # of answers, in a mutation
FACTORS = (1.0, 4.0, 16.0)  # on the width, of which the first that is over the budget is estimated beside NARROWEST
POWER = 1.7  # of such a factor, in which latencies rise about evenly
ERROR = 1.2  # times the budget: an estimate at the narrowest width above that is believed
KEPT = 2048  # points whose width and facts are remembered: those that were told are asked about at every proposal
# Facts; no axis is called so.
PARAMETERS, MULTIPLY_ADDS, DEPTH, STRIDE = "log parameters", "log multiply-adds", "log depth", "log stride of logits"

_Answers = tuple[tuple[str, Choice], ...]


@dataclass(frozen=True, kw_only=True)
class Filling:
    """The widths that fill a budget, as estimated from a latency table alone, so that a run that goes on estimates the
    same.
    """

    budget: Budget
    num_classes: int
    table: LatencyTable

    def width(self, architecture: Architecture) -> float:
        """The logarithm to base 2 of the factor on an architecture's width that fills the budget; minus infinity where
        even the narrowest is over it.
        """
        known = {NARROWEST: self._estimate(architecture, NARROWEST)}
        if known[NARROWEST] > ERROR * self.budget.milliseconds:
            return -math.inf
        for factor in FACTORS:
            known[factor] = self._estimate(architecture, factor)
            if known[factor] > self.budget.milliseconds:
                break
        near = _factor_at(self.budget.milliseconds, known)
        known[near] = self._estimate(architecture, near)
        return math.log2(_factor_at(self.budget.milliseconds, known))

    def _estimate(self, architecture: Architecture, factor: float) -> float:
        return self.table.estimate(scale_width(architecture, factor), self.num_classes)


def filling_of(budget: Budget, num_classes: int, table: LatencyTable | None) -> Filling | None:
    """None where there is no latency table."""
    return None if table is None else Filling(budget=budget, num_classes=num_classes, table=table)


class SpaceQuestions:
    """A space, as `nas.search.propose.sampler` asks it."""

    def __init__(self, space: Space, rungs: tuple[float, ...], filling: Filling | None) -> None:
        self.rungs = rungs
        self._space = space
        self._filling = filling
        self._width = functools.lru_cache(KEPT)(self._estimated)
        self._facts = functools.lru_cache(KEPT)(self._found)
        self._architecture = functools.lru_cache(KEPT)(self._built)

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
        return [each for each in found if self._width(key(each)) > -math.inf]

    def facts(self, point: Genotype) -> Mapping[str, float]:
        """What is known of it at the width that is estimated to fill the budget, where there are estimates."""
        return self._facts(key(point))

    def _found(self, answers: _Answers) -> Mapping[str, float]:
        if self._filling is None:
            return {}
        factor = 2 ** max(self._width(answers), math.log2(NARROWEST))
        return facts_of(scale_width(self._architecture(answers), factor), self._space.size, self._filling.num_classes)

    def _estimated(self, answers: _Answers) -> float:
        return 0.0 if self._filling is None else self._filling.width(self._architecture(answers))

    def _built(self, answers: _Answers) -> Architecture:
        point = dict(answers)
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


def facts_of(architecture: Architecture, size: tuple[int, int], num_classes: int) -> dict[str, float]:
    """Logarithms of how large it is, how much it computes for an image of `size` (height, width), how deep it is and
    how coarse its logits are before they are interpolated.
    """
    graph = architecture.graph(num_classes)
    logits = graph.outputs[0]
    while logits.kind in ("resize", "repeat"):
        logits = graph.nodes[logits.inputs[0]]
    return {
        PARAMETERS: math.log2(parameters(architecture, num_classes)),
        MULTIPLY_ADDS: math.log2(multiply_adds(architecture, size, num_classes)),
        DEPTH: math.log2(1 + depth(architecture, num_classes)),
        STRIDE: math.log2(logits.output_stride[0]),
    }


def draw(space: Space, rng: random.Random, filling: Filling | None = None) -> tuple[Architecture, Genotype]:
    """What `Space.sample` gives, and its genotype. Answers that narrow ranges leave no way on from are drawn again, and
    so is what no width is estimated to bring inside the budget of `filling`, unless all that is drawn is over it.

    Raises: ArchitectureError when one draw after the other leads to nothing.
    """
    reason = ""
    over: tuple[Architecture, Genotype] | None = None
    for _ in range(MOST_TRIES):
        answers: dict[str, Choice] = {}
        try:
            found = space.choose(functools.partial(_drawn, rng, answers))
        except ArchitectureError as error:
            reason = str(error)
            continue
        if filling is None or filling.width(found) > -math.inf:
            return found, answers
        over = found, answers
    if over is not None:
        return over  # to be measured: estimates err
    raise ArchitectureError(f"{reason} (all {MOST_TRIES} draws failed; this is the last error)")


def _drawn(rng: random.Random, answers: dict[str, Choice], name: str, options: Sequence[Choice]) -> Choice:
    answers[name] = rng.choice(options)
    return answers[name]


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
    filling: Filling | None = None,
    filling_at: Callable[[float], Filling | None] | None = None,
) -> Sampler[Architecture]:
    """A sampler of this kind that searches a space; random until it was told of `startup` candidates. `rungs`: the
    shares of a whole training at which trainings may pause, if it is of a kind that has them go on. `filling`: of the
    budget, where there are estimates; `filling_at`: of one of so many milliseconds, where there are several.

    Raises: UserError when there is no such kind.
    """
    used = rungs if samplers.resumes(kind) else (1.0,)
    return Sampler(
        SpaceQuestions(space, used, filling),
        lambda candidates: samplers.make(kind, seed=seed, startup=startup, candidates=candidates),
        None if filling_at is None else lambda each: SpaceQuestions(space, used, filling_at(each)),
        stateless=samplers.stateless(kind),
    )
