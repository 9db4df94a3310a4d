"""The candidates that a sampler compares, on a device that is known by its latency table alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

import space
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.search.propose import candidates
from nas.search.propose.candidates import (
    DEPTH,
    MULTIPLY_ADDS,
    PARAMETERS,
    STRIDE,
    SpaceQuestions,
    draw,
    facts_of,
    filling_of,
    sampler_of,
)
from nas.search.propose.sampler import Outcome
from space import Space
from space.axes import searched
from space.choices import Choice, Genotype
from space.scale import scale_width

CLASSES = 11
SPACE = Space(ranges={**searched(), "stages": (2,), "stage.depth": (1, 4)}, size=(64, 96))


@pytest.fixture
def table() -> LatencyTable:
    """A latency table of one millisecond for every two million multiply-adds and for every twenty layers."""
    return LatencyTable(
        target="torch@cpu:1", height=64, width=96, milliseconds={}, networks=10, seconds=2.0, error=0.05,
        unit_milliseconds={"multiply_adds": 5e-7, "count": 0.05}, environment={},
    )  # fmt: skip


def test_the_estimated_width_nearly_fills_the_budget(table: LatencyTable) -> None:
    filling = filling_of(Budget.parse("30ms"), CLASSES, table)
    assert filling is not None
    for seed in range(8):
        architecture, _ = draw(SPACE, random.Random(seed))
        milliseconds = table.estimate(scale_width(architecture, 2 ** filling.width(architecture)), CLASSES)
        assert 24 < milliseconds < 36, "three estimates tell all widths"


def test_networks_that_hardly_fit_at_their_narrowest_are_not_compared(table: LatencyTable) -> None:
    """Layers cost most here, so that deep networks fill or exceed the budget at every width."""
    filling = filling_of(Budget.parse("9ms"), CLASSES, table)
    assert filling is not None
    limited, free = (SpaceQuestions(SPACE, (1.0,), each) for each in (filling, None))
    some, every = (each.around([], random.Random(0)) for each in (limited, free))
    assert 0 < len(some) < len(every)
    assert all(each in every for each in some)

    def taken(point: Genotype) -> float:
        return filling.at_narrowest(SPACE.choose(lambda name, _: point[name]))

    assert max(map(taken, some)) <= 0.6
    mutations = limited.around(some[:2], random.Random(1))[-60:]
    assert 0.6 < max(map(taken, mutations)) <= 1, "mutations of the best need less room"

    def layers(points: list[Genotype]) -> float:
        built = [SPACE.choose(lambda name, _, each=each: each[name]) for each in points]  # type: ignore[misc]
        return sum(len(each.graph(CLASSES).nodes) for each in built) / len(built)

    assert layers([each for each in every if each not in some]) > 1.5 * layers(some)
    assert free.facts(every[0]) == {}


def test_networks_that_hardly_fit_at_their_narrowest_are_not_drawn(
    table: LatencyTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks drawn without a budget are drawn with one too, if there is room to widen them."""
    filling = filling_of(Budget.parse("9ms"), CLASSES, table)
    assert filling is not None
    free, limited = ([draw(SPACE, random.Random(seed), each) for seed in range(6)] for each in (None, filling))
    roomy = [filling.at_narrowest(architecture) <= 0.6 for architecture, _ in free]
    assert 0 < sum(roomy) < len(roomy)
    assert all(filling.at_narrowest(architecture) <= 0.6 for architecture, _ in limited)
    assert [each == other for each, other in zip(free, limited, strict=True)] == roomy


def test_the_fastest_network_is_drawn_if_none_fits(table: LatencyTable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Estimates may be wrong, so the network is worth a measurement."""
    monkeypatch.setattr(candidates, "MOST_TRIES", 5)
    hopeless = filling_of(Budget.parse("0.01ms"), CLASSES, table)
    assert hopeless is not None
    drawing = random.Random(0)
    takes = [hopeless.at_narrowest(draw(SPACE, drawing)[0]) for _ in range(5)]
    found, _ = draw(SPACE, random.Random(0), hopeless)
    assert hopeless.at_narrowest(found) == min(takes) > 1


def test_every_other_kind_of_the_two_best_points_is_compared() -> None:
    """Every other possible block, stem, decoder, number of stages, downsampling and label size is compared, with the
    other answers kept if possible.
    """
    kinds = ("block", "stem.kind", "decoder", "stages", "down", "label_stride")
    best = [draw(SPACE, random.Random(seed))[1] for seed in range(3)]
    found = SpaceQuestions(SPACE, (1.0,), None).around(best, random.Random(0))
    checked = 0
    for parent in best[:2]:
        offered = options_on_the_way(parent)
        for name in kinds:
            for option in offered[name]:
                same = {
                    each: parent[each]
                    for each in kinds
                    if parent[each] in options_on_the_way({**parent, name: option})[each]
                }
                expected = {**same, name: option}
                assert any(expected.items() <= each.items() for each in found), expected
                checked += 1
    assert checked > 30
    assert len(found) < 210, "as many as without"


def test_parts_of_the_best_networks_are_crossed() -> None:
    """The stem and stages of Fast-SCNN with the decoder of NDNet45-ende, and the reverse."""
    whole = Space(ranges=searched(), size=(180, 240))
    first, second = (whole.closest_genotype(space.load(name)) for name in ("fast-scnn", "ndnet45-ende"))
    assert first is not None
    assert second is not None
    found = SpaceQuestions(whole, (1.0,), None).around([first, second], random.Random(0))

    def has_encoder_of(point: Genotype, parent: Genotype) -> bool:
        return all(
            point.get(name) == answer
            for name, answer in parent.items()
            if name.startswith(("stem", "stage", "block", "down"))
        )

    for encoder, decoder in ((first, second), (second, first)):
        crossed = [each for each in found if has_encoder_of(each, encoder)]
        assert decoder["decoder"] in {each.get("decoder") for each in crossed}
        assert decoder["head"] in {each.get("head") for each in crossed}


def options_on_the_way(point: Genotype) -> dict[str, Sequence[Choice]]:
    """The options of each question, with the other questions answered as in a point as far as possible."""
    offered: dict[str, Sequence[Choice]] = {}

    def ask(name: str, options: Sequence[Choice]) -> Choice:
        offered[name] = options
        return point[name] if point.get(name) in options else options[0]

    SPACE.choose(ask)
    return offered


def test_facts_are_those_of_the_network_that_fills_the_budget(table: LatencyTable) -> None:
    """Layers are the same at any width, so twice the budget allows only more multiply-adds."""
    small, large = (
        SpaceQuestions(SPACE, (1.0,), filling_of(Budget.parse(each), CLASSES, table)) for each in ("30ms", "60ms")
    )
    for point in (draw(SPACE, random.Random(seed))[1] for seed in range(3)):
        some, more = small.facts(point), large.facts(point)
        assert (2 ** more[MULTIPLY_ADDS] - 2 ** some[MULTIPLY_ADDS]) * 5e-7 == pytest.approx(30, rel=0.25)
        assert more[PARAMETERS] > some[PARAMETERS]
        assert (more[DEPTH], more[STRIDE]) == (some[DEPTH], some[STRIDE])


def test_the_stride_of_logits_is_that_of_the_interpolated_map() -> None:
    plain = space.load("swiftnet-rn18")
    shuffled = replace(plain, head=replace(plain.head, shuffle=2))
    assert facts_of(plain, (64, 96), CLASSES)[STRIDE] == 2
    assert facts_of(shuffled, (64, 96), CLASSES)[STRIDE] == 1


@pytest.mark.slow
def test_a_sampler_learns_that_wide_networks_score_well(table: LatencyTable) -> None:
    """Scores depend on the filling width alone: among hundreds of candidates wide ones are proposed."""
    filling = filling_of(Budget.parse("6ms"), CLASSES, table)
    assert filling is not None
    sampler = sampler_of(SPACE, kind="surrogate", startup=12, seed=0, filling=filling)
    told, rng = [], random.Random(0)
    while len(told) < 12:
        architecture, genotype = draw(SPACE, rng)
        if filling.width(architecture) > -9:
            told.append(filling.width(architecture))
            sampler.tell(sampler.enter(genotype), Outcome(miou=0.5 + 0.05 * told[-1]))
    proposed = []
    for _ in range(4):
        proposal = sampler.propose()
        proposed.append(filling.width(proposal.built))
        sampler.tell(proposal.number, Outcome(miou=0.5 + 0.05 * proposed[-1]))
    assert sum(proposed) / len(proposed) > sorted(told)[-3]
