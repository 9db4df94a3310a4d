"""Points of a space that a sampler compares: draws, and mutations of the best ones so far."""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Sequence

from nas import samplers
from nas.search.sampler import MOST_TRIES, Sampler
from space import Architecture, Space
from space.choices import Ask, Choice, Genotype
from space.errors import ArchitectureError

DRAWS = 80
MUTATIONS = 120
MOST_CHANGES = 3  # of answers, in a mutation


class SpaceQuestions:
    """A space, as `nas.search.sampler` asks it."""

    resumable = False  # a candidate's training that was stopped does not go on

    def __init__(self, space: Space) -> None:
        self._space = space

    def choose(self, ask: Ask) -> Architecture:
        """The architecture that the answers lead to."""
        return self._space.choose(ask)

    def around(self, best: Sequence[Genotype], rng: random.Random) -> list[Genotype]:
        """Draws, and about as many mutations of the best ones, where there are any."""
        found: list[Genotype] = [draw(self._space, rng)[1] for _ in range(DRAWS)]
        for index in range(MUTATIONS if best else 0):
            with contextlib.suppress(ArchitectureError):  # narrow ranges leave no way on from these answers
                found.append(self._mutated(best[index % len(best)], rng))
        return found

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


def sampler_of(space: Space, *, kind: str, startup: int, seed: int) -> Sampler[Architecture]:
    """A sampler of this kind that searches a space; random until it was told of `startup` candidates.

    Raises: UserError when there is no such kind.
    """
    return Sampler(
        SpaceQuestions(space),
        lambda candidates: samplers.make(kind, seed=seed, startup=startup, candidates=candidates),
    )
