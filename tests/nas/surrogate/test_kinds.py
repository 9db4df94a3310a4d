"""A search keeps trying other kinds of networks, however good the variants of the best one are."""

from __future__ import annotations

import random
from collections.abc import Sequence

from nas import samplers
from nas.search.propose.sampler import Outcome, Sampler
from space.choices import Ask, Choice, Genotype

PLACES = tuple(range(20))


class Kinds:
    """Two questions, for a kind and for a place; a place of another kind differs in kind."""

    rungs = (1.0,)

    def __init__(self, kinds: Sequence[str]) -> None:
        self.kinds = kinds

    def choose(self, ask: Ask) -> tuple[Choice, Choice]:
        return ask("kind", tuple(self.kinds)), ask("place", PLACES)

    def facts(self, point: Genotype) -> dict[str, float]:
        return {}

    def kind(self, point: Genotype) -> Choice:
        return point["kind"]

    def around(self, best: Sequence[Genotype], rng: random.Random) -> list[Genotype]:
        return [{"kind": kind, "place": place} for kind in self.kinds for place in PLACES]


def kinds_tried(kinds: Sequence[str], steps: int) -> list[Choice]:
    """The kind of each proposal in a search that knows the first kind as good at every place, and all others as bad."""
    sampler = Sampler(Kinds(kinds), lambda points: samplers.make("surrogate", seed=0, startup=1, candidates=points))
    for place in range(6):
        known = sampler.enter({"kind": kinds[0], "place": place})
        sampler.tell(known, Outcome(miou=0.5 + 0.01 * place))
    found = []
    for _ in range(steps):
        proposal = sampler.propose()
        kind, place = proposal.built
        found.append(kind)
        sampler.tell(proposal.number, Outcome(miou=0.5 + 0.01 * float(place) if kind == kinds[0] else 0.1))
    return found


def test_one_in_four_new_candidates_is_of_a_kind_that_was_not_tried() -> None:
    found = kinds_tried("abcdef", 12)
    first = {kind: found.index(kind) for kind in "bcdef" if kind in found}
    assert len(first) >= 3
    assert found.count("a") >= 6, "the best kind is still searched"


def test_a_search_goes_on_when_all_kinds_have_been_tried() -> None:
    found = kinds_tried("ab", 12)
    assert found.count("b") >= 1
    assert found.count("a") >= 9
