"""The input size of a `Space`: draws run at it, and no grid, context, decoder or dilation is too large for its maps."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from space import Architecture, ArchitectureError, Space
from space.choices import Choice
from space.context import PoolingPyramid

DrawMany = Callable[..., list[Architecture]]
Replay = Callable[[Architecture, Space], Architecture]


def test_a_pooling_grid_larger_than_the_feature_map_is_not_offered(draw_many: DrawMany) -> None:
    ranges = {"decoder": ("ladder",), "context": ("spp",), "context.grids": ("8-4-2",)}
    with pytest.raises(ArchitectureError, match=r"space\.context"):
        draw_many(Space(ranges=ranges, size=(32, 48)))


@pytest.mark.parametrize(
    ("ranges", "size"),
    [
        ({"detail": ("both", "up"), "decoder": ("none",)}, (180, 240)),
        ({"detail": ("none", "both")}, (180, 240)),
        ({"decoder": ("none",), "detail.bottles": (1, 2)}, (90, 120)),
        ({"decoder": ("ladder",)}, (90, 120)),
        ({"decoder": ("none", "ladder"), "rep": (True,), "stem.kind": ("cat",)}, (90, 120)),
    ],
)
def test_an_encoder_ends_where_the_requested_context_has_room(
    ranges: dict[str, tuple[Choice, ...]], size: tuple[int, int]
) -> None:
    space_of = Space(ranges={**ranges, "context": ("pyramid",)}, size=size)
    rng = random.Random(0)
    for _ in range(60):
        architecture = space_of.sample(rng)
        if architecture.context is not None:
            assert isinstance(architecture.context, PoolingPyramid)
            assert max(architecture.context.strides) < -(-min(size) // architecture.output_stride)


def test_an_encoder_ends_where_a_decoder_has_room(draw_many: DrawMany) -> None:
    narrow: dict[str, tuple[Choice, ...]] = {"decoder": ("steps",), "decoder.bins": ("1-2-3-6",)}
    assert all(draw.output_stride <= 16 for draw in draw_many(Space(ranges=narrow, size=(90, 120))))


def test_a_size_without_room_for_the_requested_parts_is_refused() -> None:
    rng = random.Random(0)
    with pytest.raises(ArchitectureError, match=r"space\.decoder: none of \['steps'\] is possible at 32x48; add"):
        Space(ranges={"decoder": ("steps",), "decoder.bins": ("1-2-3-6",)}, size=(32, 48)).sample(rng)
    with pytest.raises(ArchitectureError, match=r"space\.context: none of \['pyramid'\] is possible at 32x48; add"):
        Space(ranges={"decoder": ("none",), "context": ("pyramid",)}, size=(32, 48)).sample(rng)


def test_a_dilation_larger_than_the_feature_map_is_not_offered() -> None:
    rng = random.Random(0)
    for _ in range(300):
        draw = Space(ranges={"block": ("nonbt", "sep")}, size=(64, 96)).sample(rng)
        stride = draw.stem.stride
        for stage in draw.stages:
            stride *= stage.stride
            assert max(stage.rates) <= max(1, -(-64 // stride))


def test_a_size_without_pixels_is_refused() -> None:
    with pytest.raises(ArchitectureError, match=r"space\.size"):
        Space(size=(0, 480))


@pytest.mark.share(3)
def test_random_architectures_run_at_the_size_of_their_space(
    random_architecture: Architecture, tiny_space: Space, replay: Replay
) -> None:
    network = random_architecture.build(3).train()
    logits = network(torch.rand(2, 3, *tiny_space.size, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (2, 3, *tiny_space.size)
    assert torch.isfinite(logits).all()
    assert replay(random_architecture, tiny_space) == random_architecture


@pytest.mark.parametrize("block", ["dblock", "dab"])
def test_split_dilations_reach_no_farther_than_half_of_a_map(block: str, draw_many: DrawMany) -> None:
    """At 360x480 a map at stride 16 has 23 rows: rate 14, which is drawn for larger images, is not drawn."""
    farthest = []
    for size in ((360, 480), (1024, 2048)):
        drawn = draw_many(Space(ranges={"stages": (3, 4), "block": (block,)}, size=size), 60)
        coarse = [
            (max(stage.rates), -(-size[0] // stride))
            for each in drawn
            for stage, stride in zip(each.stages, each.encoder.strides, strict=True)
            if stride >= 16 and stage.rates != (1,)
        ]
        assert all(rate <= rows / 2 for rate, rows in coarse)
        farthest.append(max(rate for rate, _ in coarse))
    assert farthest[0] <= 11 < farthest[1]


def test_a_split_dilated_block_that_strides_is_undilated(draw_many: DrawMany) -> None:
    drawn = draw_many(Space(ranges={"block": ("dblock",)}), 60)
    opening = [stage.rates for each in drawn for stage in each.stages if stage.stride > 1]
    following = [stage.rates for each in drawn for stage in each.stages if stage.stride == 1]
    assert {rates[0] for rates in opening} == {1}
    assert {rates[0] for rates in following} > {1}
    dilated = Space(ranges={"block": ("dblock",), "stage.rates": ("2", "4")})  # a study may allow nothing else
    assert all(stage.rates[0] > 1 for each in draw_many(dilated, 5) for stage in each.stages)
