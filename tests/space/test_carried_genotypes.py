"""Genotypes from elsewhere as points of a `Space`: of other spaces, of earlier searches, of published networks."""

from __future__ import annotations

import random

import pytest

import space
from space import Architecture, ArchitectureError, Space
from space.axes import ranges, searched
from space.choices import NEWER, OPENED, Choice
from space.scale import scale_width

SIZES = [(120, 160), (180, 240), (360, 480)]
UNLIKE = (
    "ndnet29w-fcn32", "rdrnet-s", "rdrnet-s-simple", "regseg", "stdc1", "swiftnet-mnv2", "swiftnet-rn18-pyramid",
)  # fmt: skip
UNLIKE_WHEN_SMALL = ("ddrnet23-slim", "dabnet")  # small maps have no room for their windows and rates


@pytest.mark.parametrize("axis", [*NEWER, "block", "decoder", "activation", "stage.depth"])
def test_genotypes_of_another_space_are_carried_over_if_their_network_is_in_the_space(
    axis: str, draws: list[Architecture]
) -> None:
    """This holds for a space that was narrowed and for one that was opened, at any width of the built network."""
    outside = 0
    for draw in draws[:40]:
        for option in ranges()[axis][:3]:
            narrow = Space(ranges={axis: (option,)})
            try:
                expected = narrow.genotype(draw)
            except ArchitectureError:
                expected, outside = None, outside + 1
            built = scale_width(draw, 0.5)
            assert narrow.point(Space().genotype(draw), built) == expected
            assert expected is None or Space().point(expected, built) == Space().genotype(draw)
    assert outside


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", space.published())
def test_the_closest_point_to_a_published_network_is_of_its_kind_or_missing(name: str, size: tuple[int, int]) -> None:
    """A search gives the closest point the known score of the published network."""
    network, points = space.load(name), Space(ranges=searched(), size=size)
    if name in UNLIKE or (name in UNLIKE_WHEN_SMALL and size < (360, 480)):
        assert points.closest_genotype(network) is None
        return
    answers = points.closest_genotype(network)
    assert answers is not None
    closest = points.choose(lambda name, options: answers[name])
    for each in (network, closest):
        assert kind_of(each) == kind_of(network)
    for ours, theirs in zip(closest.stages, network.stages, strict=True):
        assert (ours.block, ours.stride) == (theirs.block, theirs.stride)
        assert theirs.depth / 2 <= ours.depth <= 2 * theirs.depth


def kind_of(network: Architecture) -> tuple[object, ...]:
    """The traits in which a network and its closest point must agree."""
    return (
        network.stem.kind,
        network.stem.stride,
        network.stem.separable,
        network.levels,
        network.rep,
        type(network.context),
        type(network.decoder),
        network.detail is None,
        network.head.kind,
    )


@pytest.mark.parametrize(
    "narrow", [{"stage.depth": (1, 2)}, {"stage.stride": (2,)}, {"block": ("nonbt",)}, {"label_stride": (2,)}]
)
def test_a_point_with_other_depths_or_strides_is_not_close(narrow: dict[str, tuple[Choice, ...]]) -> None:
    assert Space(ranges=searched()).closest_genotype(space.load("ndnet45-ende")) is not None
    assert Space(ranges={**searched(), **narrow}).closest_genotype(space.load("ndnet45-ende")) is None


@pytest.mark.parametrize("size", SIZES)
def test_genotypes_from_before_the_newer_families_are_points_of_the_space(size: tuple[int, int]) -> None:
    """Questions that were not asked then get the answers that every network had."""
    before = Space(
        ranges={
            **searched(),
            "stages": (2, 3, 4),
            "block": ("nonbt", "fpl", "sep"),
            "decoder": ("none", "deconv", "cat", "ladder"),
            "context": ("none", "spp"),
            "detail": ("none",),
            "head": ("linear", "linear_nobias", "sep", "preact"),
            "stem.halvings": (1,),
            "stem.rising": (False,),
            "stem.separable": (False,),
        },
        size=size,
    )
    now = Space(ranges=searched(), size=size)
    for seed in range(40):
        network = before.sample(random.Random(seed))
        answers = {name: answer for name, answer in before.genotype(network).items() if name not in OPENED}
        if network.context is not None:
            answers["context"] = "spp"
        expected = now.genotype(network)
        if network.label_stride == 1:
            assert now.point(answers) == now.point(answers, network) == expected
        assert now.carried(before.genotype(network), before) == expected
