"""Points of a space that a sampler compares: random draws, and changes and crossings of the best points so far.

Where the run has a latency table, hundreds of points are compared at the width that is estimated to fill the budget,
before any is measured. Points that no width brings inside the budget are left out, and so are random draws that take
most of it at their narrowest width. For the others the sampler sees a few numbers beside their answers: parameters,
multiply-adds, depth and the stride of the logits. On networks of equal latency that were trained alike
(`studies/search/camvid.csv`), these four predict scores better than all answers do, as long as few trainings are known.
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
MUTATIONS = 80
CROSSINGS = 40
MOST_CHANGES = 3  # answers changed in a mutation
# Answers that shape the whole network; networks with the same ones are of one kind. Mutations rarely change one of them
# alone, although in three searches on CamVid such changes of the best networks brought the large gains.
SHAPE = ("block", "stem.kind", "decoder", "stages", "down")
KINDS = (*SHAPE, "label_stride")
# Parts of a network, by the first word of an axis; a crossing takes each of them whole. Other axes are on their own.
PARTS = {"block": "stages", "down": "stages", "factorization": "stages", "levels": "decoder", "context": "decoder"}
CHANGED = 2  # best points whose KINDS are changed; as many random draws are left out
FACTORS = (1.0, 4.0, 16.0)  # on the width, estimated after NARROWEST until one is over the budget
POWER = 1.7  # latency rises about linearly with the width factor to this power
# Random draws take at most this share of the budget at their narrowest, by estimate; others have no room to be widened.
# In three searches on CamVid all good networks took 0.1 to 0.58, and three quarters of all draws more than 0.6.
MOST_AT_NARROWEST = 0.6
KEPT = 2048  # points whose width and facts are cached: every proposal asks again about all trained ones
# Names of the facts; no axis has such a name.
PARAMETERS, MULTIPLY_ADDS, DEPTH, STRIDE = "log parameters", "log multiply-adds", "log depth", "log stride of logits"

_Answers = tuple[tuple[str, Choice], ...]


@dataclass(frozen=True, kw_only=True)
class Filling:
    """Estimates the width that fills a budget, from a latency table alone: measurements would make the estimates of a
    resumed run differ.
    """

    budget: Budget
    num_classes: int
    table: LatencyTable

    def at_narrowest(self, architecture: Architecture) -> float:
        """The estimated share of the budget that an architecture takes at its narrowest width."""
        return self._estimate(architecture, NARROWEST) / self.budget.milliseconds

    def width(self, architecture: Architecture) -> float:
        """Logarithm to base 2 of the factor on an architecture's width that fills the budget; minus infinity where even
        the narrowest width is over it.
        """
        known = {NARROWEST: self._estimate(architecture, NARROWEST)}
        if known[NARROWEST] > self.budget.milliseconds:
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
    """The `Filling` of a budget; None where there is no latency table."""
    return None if table is None else Filling(budget=budget, num_classes=num_classes, table=table)


class SpaceQuestions:
    """A space as the `Questions` of `nas.search.propose.sampler`."""

    def __init__(self, space: Space, rungs: tuple[float, ...], filling: Filling | None) -> None:
        self.rungs = rungs
        self._space = space
        self._filling = filling
        self._at_narrowest = functools.lru_cache(KEPT)(self._estimated_at_narrowest)
        self._width = functools.lru_cache(KEPT)(self._estimated)
        self._facts = functools.lru_cache(KEPT)(self._found)
        self._architecture = functools.lru_cache(KEPT)(self._built)

    def choose(self, ask: Ask) -> Architecture:
        """The architecture that follows from the answers of `ask`."""
        return self._space.choose(ask)

    def around(self, best: Sequence[Genotype], rng: random.Random) -> list[Genotype]:
        """Random draws with room to be widened, the `best` points, the first of these with every other answer to one of
        `KINDS`, and mutations and crossings of all best points. The best points may come from other runs or budgets, so
        that they are candidates here too.
        """
        others = [each for parent in best[:CHANGED] for each in self._other_kinds(parent, rng)]
        drawn: list[Genotype] = [draw(self._space, rng)[1] for _ in range(DRAWS - len(others))]
        roomy = [each for each in drawn if self._at_narrowest(key(each)) <= MOST_AT_NARROWEST]
        found = [*(roomy or drawn), *best, *others]
        for index in range(MUTATIONS if best else 0):
            with contextlib.suppress(ArchitectureError):  # narrow ranges may leave a question without options
                found.append(self._mutated(best[index % len(best)], rng))
        for _ in range(CROSSINGS if len(best) > 1 else 0):
            with contextlib.suppress(ArchitectureError):
                found.append(self._crossed(rng.sample(best, 2), rng))
        return [each for each in found if self._at_narrowest(key(each)) <= 1]

    def facts(self, point: Genotype) -> Mapping[str, float]:
        """Facts of a point at the width that is estimated to fill the budget; empty without estimates."""
        return self._facts(key(point))

    def kind(self, point: Genotype) -> tuple[Choice | None, ...]:
        """The answers to `SHAPE`."""
        return tuple(point.get(name) for name in SHAPE)

    def _found(self, answers: _Answers) -> Mapping[str, float]:
        if self._filling is None:
            return {}
        factor = 2 ** max(self._width(answers), math.log2(NARROWEST))
        return facts_of(scale_width(self._architecture(answers), factor), self._space.size, self._filling.num_classes)

    def _estimated_at_narrowest(self, answers: _Answers) -> float:
        return 0.0 if self._filling is None else self._filling.at_narrowest(self._architecture(answers))

    def _estimated(self, answers: _Answers) -> float:
        return 0.0 if self._filling is None else self._filling.width(self._architecture(answers))

    def _built(self, answers: _Answers) -> Architecture:
        point = dict(answers)
        return self._space.choose(lambda name, options: point[name] if point.get(name) in options else options[0])

    def _other_kinds(self, parent: Genotype, rng: random.Random) -> list[Genotype]:
        """The parent with every other answer to one of `KINDS`. New questions, and answers that became impossible, are
        drawn.
        """
        offered: dict[str, Sequence[Choice]] = {}

        def note(name: str, options: Sequence[Choice]) -> Choice:
            offered[name] = options
            return parent[name] if parent.get(name) in options else options[0]

        self._space.choose(note)
        found: list[Genotype] = []
        for name in KINDS:
            for option in offered.get(name, ()):
                if option != parent.get(name):
                    with contextlib.suppress(ArchitectureError):  # narrow ranges may leave a question without options
                        found.append(self._completed({**parent, name: option}, rng))
        return found

    def _crossed(self, parents: Sequence[Genotype], rng: random.Random) -> Genotype:
        """Each part of a network from one of its parents. Answers that became impossible are drawn."""
        parts = sorted({_part_of(name) for parent in parents for name in parent})
        chosen = {part: rng.choice(parents) for part in parts}
        wanted = {name: answer for part in parts for name, answer in chosen[part].items() if _part_of(name) == part}
        return self._completed(wanted, rng)

    def _completed(self, wanted: Genotype, rng: random.Random) -> Genotype:
        """A point with the wanted answers as far as they are possible; the others are drawn."""
        answers: dict[str, Choice] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            answers[name] = wanted[name] if wanted.get(name) in options else rng.choice(options)
            return answers[name]

        self._space.choose(ask)
        return answers

    def _mutated(self, parent: Genotype, rng: random.Random) -> Genotype:
        """The parent with a few answers changed. New questions, and answers that became impossible, are drawn."""
        changed = rng.sample(sorted(parent), min(rng.randint(1, MOST_CHANGES), len(parent)))
        answers: dict[str, Choice] = {}

        def ask(name: str, options: Sequence[Choice]) -> Choice:
            others = [option for option in options if option != parent.get(name)]
            kept = parent.get(name) in options and not (name in changed and others)
            answers[name] = parent[name] if kept else rng.choice(others)
            return answers[name]

        self._space.choose(ask)
        return answers


def _part_of(name: str) -> str:
    """The part of a network that an axis belongs to: stage0.width and block belong to the stages."""
    word = name.split(".")[0]
    return "stages" if word.startswith("stage") else PARTS.get(word, word)


def facts_of(architecture: Architecture, size: tuple[int, int], num_classes: int) -> dict[str, float]:
    """Logarithms to base 2 of an architecture's parameters, multiply-adds for an image of `size` (height, width), depth
    and the stride of its logits before they are interpolated.
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
    """A random architecture as `Space.sample` gives it, and its genotype.

    It is drawn again where narrow ranges leave a question without options, and where it is estimated to take more than
    `MOST_AT_NARROWEST` of the budget of `filling` at its narrowest. If all draws do, the one that takes least is
    returned.

    Raises: ArchitectureError when no draw leads to an architecture.
    """
    reason = ""
    over: tuple[Architecture, Genotype] | None = None
    least = math.inf
    for _ in range(MOST_TRIES):
        answers: dict[str, Choice] = {}
        try:
            found = space.choose(functools.partial(_drawn, rng, answers))
        except ArchitectureError as error:
            reason = str(error)
            continue
        taken = 0.0 if filling is None else filling.at_narrowest(found)
        if taken <= MOST_AT_NARROWEST:
            return found, answers
        if taken < least:
            over, least = (found, answers), taken
    if over is not None:
        return over  # it is worth a measurement: estimates may be wrong
    raise ArchitectureError(f"{reason} (all {MOST_TRIES} draws failed; this is the last error)")


def _drawn(rng: random.Random, answers: dict[str, Choice], name: str, options: Sequence[Choice]) -> Choice:
    answers[name] = rng.choice(options)
    return answers[name]


def _factor_at(milliseconds: float, known: Mapping[float, float]) -> float:
    """The factor at which the latency is `milliseconds`, interpolated between the latencies of known factors; the
    nearest factor where it lies outside of them.
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
    """A sampler of the given kind for a space; it proposes at random until it knows `startup` candidates.

    `rungs` are the shares of a whole training at which trainings may pause; kinds of sampler that never resume a
    training ignore them. `filling` is that of the budget, where there are estimates; with several budgets `filling_at`
    gives that of a budget in milliseconds.

    Raises: UserError when there is no such kind.
    """
    used = rungs if samplers.resumes(kind) else (1.0,)
    return Sampler(
        SpaceQuestions(space, used, filling),
        lambda candidates: samplers.make(kind, seed=seed, startup=startup, candidates=candidates),
        None if filling_at is None else lambda each: SpaceQuestions(space, used, filling_at(each)),
        stateless=samplers.stateless(kind),
    )
