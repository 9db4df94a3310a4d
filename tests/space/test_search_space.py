"""Draws of a `Space` and their genotypes: draws are valid, published networks are points, and all options occur."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

import space
from space import Architecture, ArchitectureError, Space
from space.axes import ranges, searched
from space.stem import Stem

DrawMany = Callable[..., list[Architecture]]
Replay = Callable[[Architecture, Space], Architecture]


def test_draws_are_valid_and_all_different(draws: list[Architecture]) -> None:
    """Construction checks validity, so having the draws proves that all questions lead to an architecture."""
    assert len(set(draws[:300])) > 295
    assert all(1 <= len(draw.stages) <= 12 for draw in draws)
    assert all(8 <= draw.output_stride <= (64 if draw.detail else 32) for draw in draws)


@pytest.mark.parametrize(
    ("count", "fewest", "fewest_pyramids"), [(1000, 7, 1), pytest.param(13_000, 30, 30, marks=pytest.mark.slow)]
)
def test_draws_hold_every_option_of_every_discrete_trait(
    draws: list[Architecture], count: int, fewest: int, fewest_pyramids: int, draw_many: DrawMany
) -> None:
    """Image pyramids are rarer, since few architectures can have them."""
    drawn = draws if count == len(draws) else draw_many(Space(), count)

    def kinds(trait: Sequence[object]) -> Counter[object]:
        return Counter(trait)

    seen = {
        "block": kinds([draw.stages[0].block for draw in drawn]),
        "factorization": kinds([draw.stages[0].factorization for draw in drawn]),
        "down": kinds([draw.stages[0].down for draw in drawn]),
        "fuse": kinds([draw.stages[0].fuse for draw in drawn]),
        "stem.kind": kinds([draw.stem.kind for draw in drawn]),
        "decoder": kinds(["none" if draw.decoder is None else draw.decoder.kind for draw in drawn]),
        "levels": kinds([draw.levels for draw in drawn]),
        "context": kinds(["none" if draw.context is None else draw.context.kind for draw in drawn]),
        "detail": kinds(["none" if draw.detail is None else draw.detail.exchange for draw in drawn]),
        "activation": kinds([draw.activation for draw in drawn]),
        "rep": kinds([draw.rep for draw in drawn]),
        "head": kinds([draw.head.kind for draw in drawn if draw.head.kind != "deconv2"]),  # only for ERFNet's decoder
        "label_stride": kinds([draw.label_stride for draw in drawn]),
        "head.shuffle": kinds([draw.head.shuffle for draw in drawn]),
        "stem.separable": kinds([draw.stem.separable for draw in drawn]),
    }
    for axis, counts in seen.items():
        assert set(counts) == set(ranges()[axis]), axis
        assert min(counts.values()) >= (fewest_pyramids if axis == "levels" else fewest), axis


def test_image_pyramids_are_drawn_if_the_decoder_allows_them(draw_many: DrawMany) -> None:
    ladders = Space(ranges={"block": ("nonbt",), "down": ("block",), "decoder": ("ladder",)})
    levels = Counter(draw.levels for draw in draw_many(ladders, 100))
    assert set(levels) == set(ranges()["levels"])
    assert min(levels.values()) >= 7


@pytest.mark.slow
def test_draws_reach_from_tiny_to_huge(draws: list[Architecture]) -> None:
    counts = sorted(space.parameters(draw, 19) for draw in draws[:400])
    assert counts[0] < 100_000
    assert counts[-1] > 20_000_000


def test_the_same_seed_draws_the_same() -> None:
    first, second = (Space().sample(random.Random(3)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", space.published())
@pytest.mark.share(3)
def test_every_published_network_is_a_point_of_the_space(name: str, replay: Replay) -> None:
    architecture = space.load(name)
    assert replay(architecture, Space(size=(1024, 2048))) == architecture


def test_random_architectures_are_rebuilt_from_their_genotypes(draws: list[Architecture], replay: Replay) -> None:
    for draw in draws[:200]:
        assert replay(draw, Space()) == draw


@pytest.mark.slow
def test_re_parameterised_draws_have_a_convolution_of_several_paths(draws: list[Architecture]) -> None:
    for draw in draws[:300]:
        graph = replace(draw, rep=draw.has_plain_convolutions and draw.levels == 1, stem=unbiased(draw)).graph(1)
        assert any(node.paths for node in graph.nodes) == (draw.has_plain_convolutions and draw.levels == 1)


def unbiased(architecture: Architecture) -> Stem:
    return replace(architecture.stem, bias=False)


def test_genotypes_hold_scalars_only(draws: list[Architecture]) -> None:
    for draw in draws[:100]:
        genotype = Space().genotype(draw)
        assert all(type(value) in (int, float, str, bool) for value in genotype.values())
        assert all("/" not in name for name in genotype)


def test_an_architecture_outside_the_space_is_refused_with_the_question() -> None:
    erfnet = space.load("erfnet")
    stages = (replace(erfnet.stages[0], width=60), erfnet.stages[1])
    with pytest.raises(ArchitectureError, match=r"stage0\.width = 60 is not among"):
        Space().genotype(replace(erfnet, stages=stages))
    with pytest.raises(ArchitectureError, match=r"block = 'nonbt' is not among \['sep'\]"):
        Space(ranges={"block": ("sep",)}).genotype(erfnet)
    with pytest.raises(ArchitectureError, match="no axis"):
        Space().genotype(replace(erfnet, channels={"stage0.down.conv": 40}))
    mixed = (replace(erfnet.stages[0], factorization="composite"), erfnet.stages[1])
    with pytest.raises(ArchitectureError, match="no axis"):
        Space().genotype(replace(erfnet, stages=mixed))


def test_the_searched_ranges_are_part_of_all_ranges() -> None:
    for axis, options in searched().items():
        assert set(options) <= set(ranges()[axis])
    narrowed = Space(ranges=searched())
    rng = random.Random(1)
    for _ in range(300):
        draw = narrowed.sample(rng)
        assert draw.levels == 1
        assert draw.auxiliary == ()
        assert draw.stages[0].block in ("nonbt", "fpl", "sep", "inverted", "stdc", "dblock", "dab")
