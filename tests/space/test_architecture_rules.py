"""Impossible architectures are refused when they are constructed, with a message that names the field to change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

import space
from space import Architecture, ArchitectureError
from space.context import PoolingPyramid, SpatialPyramid
from space.decoders.cat import CatDecoder
from space.decoders.deconv import DeconvDecoder
from space.decoders.ladder import LadderDecoder
from space.detail import Detail
from space.head import Auxiliary, Head
from space.stage import DecoderStep, Stage
from space.stem import Stem


def stage(**changes: Any) -> Stage:
    return Stage(**{"block": "nonbt", "width": 32, "depth": 2, "stride": 2, **changes})


def changed(name: str, **changes: Any) -> Architecture:
    return replace(space.load(name), **changes)


def with_stages(name: str, **changes: Any) -> Architecture:
    parent = space.load(name)
    return replace(parent, stages=tuple(replace(each, **changes) for each in parent.stages))


CONTEXT = SpatialPyramid(bottleneck=32, level_width=8, grids=(2, 1))
STEP = DecoderStep(width=16, depth=1, block="nonbt")

DETAIL = space.load("ddrnet23-slim").detail or pytest.fail("it has a detail branch")
OF_LADDERS = Detail(start=1, exchange="both", parts=(stage(stride=1), stage(stride=1)))
POOLS = PoolingPyramid(order="deep", width=8, strides=(2,))
FUSED = stage(width=1024, down="cat", fuse="add")


def beside(**changes: Any) -> Architecture:
    return changed("ddrnet23-slim", detail=replace(DETAIL, **changes))


REFUSED: list[tuple[str, Callable[[], object]]] = [
    (
        "width: fpl needs a multiple of 4 (its 4 branches",
        lambda: stage(block="fpl", width=30, rates=(2, 4, 8, 16), down="module"),
    ),
    (
        "width: fpl needs a multiple of 4 (its 4 branches",
        lambda: DecoderStep(width=18, depth=1, block="fpl", rates=(2, 4, 8, 16)),
    ),
    ("width: sep needs a multiple of 4 (its expansion)", lambda: stage(block="sep", width=30)),
    ("width: esp needs", lambda: stage(block="esp", width=4, rates=(1, 2, 4, 8, 16), down="module")),
    ("width: expected 1 to", lambda: stage(width=0)),
    ("width: expected 1 to", lambda: stage(width=100_000)),
    ("depth: expected 1 to", lambda: stage(depth=0)),
    ("depth: expected 1 to", lambda: stage(depth=10_000)),
    ("stride: expected 1 or 2", lambda: stage(stride=3)),
    ("rates: expected at least one", lambda: stage(rates=())),
    ("rates: expected 1 to 64", lambda: stage(rates=(0,))),
    ("rates: fpl has 4 branches", lambda: stage(block="fpl", rates=(1,), down="module")),
    ("rates: fpl has 4 branches", lambda: stage(block="fpl", rates=(2, 2, 4, 8), down="module")),
    ("rates: esp has 5 branches", lambda: stage(block="esp", rates=(2, 4, 8, 16), down="module")),
    ("dropout: expected", lambda: stage(dropout=1.0)),
    ("dropout: expected", lambda: stage(dropout=float("nan"))),
    ("dropout: sep has no dropout; expected 0, got 0.3", lambda: stage(block="sep", dropout=0.3)),
    ("dropout: sep has no dropout", lambda: DecoderStep(width=16, depth=1, block="sep", dropout=0.1)),
    ("expansion: expected", lambda: stage(block="inverted", expansion=0)),
    ("factorization: sep cannot be factorized", lambda: stage(block="sep", factorization="all")),
    ("factorization: inverted cannot be factorized", lambda: stage(block="inverted", factorization="composite")),
    (
        "factorization: esp cannot be factorized",
        lambda: stage(block="esp", rates=(1, 2, 4, 8, 16), factorization="all"),
    ),
    (
        "down: a block whose first convolution is split (3x1 and 1x3) cannot be strided",
        lambda: stage(factorization="all"),
    ),
    ("down: module is a strided fpl or esp", lambda: stage(down="module")),
    (
        "down: stages of fpl cannot open with a strided block; use module or cat, or a block",
        lambda: stage(block="fpl", rates=(2, 4, 8, 16), down="block"),
    ),
    ("down: cat halves the size; at stride 1 expected block, got cat", lambda: stage(down="cat", stride=1)),
    ("factorization: all needs down cat, which halves", lambda: stage(factorization="all", stride=1)),
    ("fuse: fir needs a downsampler's output to join; expected none here", lambda: stage(fuse="fir", stride=1)),
    ("fuse: fir needs a downsampler's output to join; expected none here", lambda: stage(block="stdc", fuse="fir")),
    ("fuse: fir needs a downsampler", lambda: stage(fuse="fir")),
    ("fuse: image needs a downsampler", lambda: stage(block="sep", fuse="image")),
    ("fuse: add needs a downsampler", lambda: stage(fuse="add")),
    ("stem.width: cat adds", lambda: Stem(kind="cat", width=3)),
    ("stem.kernel: expected 3, 5 or 7", lambda: Stem(kind="conv_pool", width=8, kernel=4)),
    (
        "stem.kernel: separable convolutions are 3x3; expected 3, got 5",
        lambda: Stem(kind="convs", width=8, kernel=5, convolutions=2, separable=True),
    ),
    ("stem: cat is one 3x3", lambda: Stem(kind="cat", width=8, kernel=5)),
    ("stem.image: only a `convs` stem", lambda: Stem(kind="conv_pool", width=8, image=True)),
    ("stem.convolutions: expected", lambda: Stem(kind="convs", width=8, convolutions=0)),
    ("stages: expected 1 to 12, got 0", lambda: changed("erfnet-encoder", stages=())),
    ("stages[0].width: cat adds to the 16", lambda: with_stages("erfnet-encoder", width=16)),
    ("stages[1].width: cat adds to the 64", lambda: with_stages("erfnet-encoder", width=64)),
    ("norm_epsilon: expected", lambda: changed("erfnet", norm_epsilon=0.0)),
    ("levels: expected 1 to 4", lambda: changed("swiftnet-rn18-pyramid", levels=0)),
    ("levels: an image pyramid needs", lambda: changed("erfnet-encoder", levels=2)),
    ("levels: an image pyramid needs", lambda: changed("ndnet45-fcn32", levels=3)),
    ("levels: an image pyramid needs", lambda: changed("swiftnet-mnv2", context=None, levels=2)),
    ("context: an image pyramid replaces it", lambda: changed("swiftnet-rn18", levels=2)),
    ("context: spatial pyramid pooling needs a ladder", lambda: changed("ndnet45-fcn32", context=CONTEXT)),
    ("context.grids: expected 1 to 8", lambda: replace(CONTEXT, grids=())),
    ("context.grids: expected 1 to 8", lambda: replace(CONTEXT, grids=(2, 2))),
    ("context.bottleneck", lambda: replace(CONTEXT, bottleneck=0)),
    ("context.level_width", lambda: replace(CONTEXT, level_width=0)),
    ("head: a deconv decoder needs a deconv2", lambda: changed("erfnet", head=Head(kind="linear"))),
    ("head: a deconv decoder needs a deconv2", lambda: changed("erfnet-encoder", head=Head(kind="deconv2"))),
    ("head.width: linear has no width", lambda: Head(kind="linear", width=3)),
    ("head.width: expected 1", lambda: Head(kind="sep")),
    ("decoder.steps: expected at least one", lambda: DeconvDecoder(projection=0, steps=())),
    (
        "decoder.steps: expected 2 steps, from stride 8 to 2, got 3",
        lambda: changed("erfnet", decoder=DeconvDecoder(projection=0, steps=(STEP,) * 3)),
    ),
    ("decoder.projection: expected 0", lambda: DeconvDecoder(projection=-1, steps=(STEP,))),
    ("decoder.tap: expected an earlier stage", lambda: changed("ndnet45-ende", decoder=CatDecoder(tap=2, width=8))),
    ("decoder.tap: expected an earlier stage", lambda: changed("ndnet45-ende", decoder=CatDecoder(tap=-1, width=8))),
    ("decoder.width", lambda: LadderDecoder(width=0)),
    (
        "decoder: a ladder needs stages of at least two strides",
        lambda: changed("ndnet45-fcn32", stages=(stage(),), decoder=LadderDecoder(width=8), auxiliary=()),
    ),
    (
        "auxiliary.stage: expected -1 to 1, got 2",
        lambda: changed("erfnet", auxiliary=(Auxiliary(stage=2, width=0, weight=0.4),)),
    ),
    ("auxiliary.weight", lambda: Auxiliary(stage=0, width=0, weight=-1.0)),
    ("auxiliary.kind: preact3 needs a width", lambda: Auxiliary(stage=0, width=0, weight=0.4, kind="preact3")),
    (
        "auxiliary.branch: there is no detail branch",
        lambda: changed("erfnet", auxiliary=(Auxiliary(stage=0, width=8, weight=0.4, branch="detail"),)),
    ),
    (
        "auxiliary.stage: expected 0 to 2, got 3",
        lambda: changed("ddrnet23-slim", auxiliary=(Auxiliary(stage=3, width=8, weight=0.4, branch="detail"),)),
    ),
    (
        "auxiliary.tap: the stem can only be tapped at act",
        lambda: changed("erfnet", auxiliary=(Auxiliary(stage=-1, width=8, weight=0.4, tap="sum"),)),
    ),
    ("detail.parts: expected at least two", lambda: beside(parts=DETAIL.parts[:1])),
    ("detail.parts: expected 3, one for each stage after stage 1; got 2", lambda: beside(parts=DETAIL.parts[:2])),
    ("detail.parts[1].stride: the branch keeps", lambda: beside(parts=(*DETAIL.parts[:1], stage(), DETAIL.parts[2]))),
    ("detail.start: at least two stages must follow", lambda: beside(start=3)),
    ("detail.start: expected 0 to", lambda: beside(start=-1)),
    (
        "stages[4].stride: expected 2 after the start of a detail branch",
        lambda: changed("ddrnet23-slim", stages=(*space.load("ddrnet23-slim").stages[:4], stage(stride=1))),
    ),
    (
        "stages[4].fuse: expected none beside a detail branch",
        lambda: changed("ddrnet23-slim", stages=(*space.load("ddrnet23-slim").stages[:4], FUSED)),
    ),
    ("decoder: a detail branch replaces it", lambda: changed("ddrnet23-slim", decoder=LadderDecoder(width=8))),
    (
        "detail: an image pyramid cannot have a detail branch",
        lambda: changed("swiftnet-rn18-pyramid", detail=OF_LADDERS),
    ),
    ("context: a pyramid needs a ladder decoder or none", lambda: changed("ndnet45-ende", context=POOLS)),
    ("context.strides: expected 1 to 8 strides, each larger", lambda: replace(POOLS, strides=(4, 2))),
    ("context.strides: expected 1 to 8 strides, each larger", lambda: replace(POOLS, strides=())),
    ("context.strides: expected 2 to", lambda: replace(POOLS, strides=(1, 2))),
    ("context.width", lambda: replace(POOLS, width=0)),
    ("norm_momentum: expected", lambda: changed("erfnet", norm_momentum=0.0)),
    ("head_norm_epsilon: expected", lambda: changed("erfnet", head_norm_epsilon=1.0)),
    ("head_norm_momentum: expected", lambda: changed("erfnet", head_norm_momentum=-0.1)),
    ("rep: nothing to re-parameterise", lambda: changed("erfnet", rep=True)),
    ("rep: the levels of an image pyramid", lambda: changed("swiftnet-rn18-pyramid", rep=True)),
    ("stem.bias: with rep, convolutions have a bias", lambda: changed("ddrnet23-slim", rep=True)),
    ("width: bottle needs a multiple of 2 (its expansion)", lambda: stage(block="bottle", width=33, expansion=2)),
]


@pytest.mark.parametrize(("message", "make"), REFUSED, ids=[message for message, _ in REFUSED])
def test_impossible_architectures_are_refused(message: str, make: Callable[[], object]) -> None:
    with pytest.raises(ArchitectureError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize("down", ["block", "cat", "module"])
@pytest.mark.parametrize(("block", "rates"), [("dab", (2,)), ("fpl", (1, 2, 4, 8)), ("esp", (1, 2, 3, 4, 5))])
def test_a_block_that_needs_a_stride_is_refused_at_stride_1_with_suitable_blocks(block, rates, down) -> None:
    """In stages and in parts of a branch, every recommended block can be built, so that no advice leads back."""
    with pytest.raises(ArchitectureError, match=r"^block: .*halves the size; at stride 1 expected one of") as refused:
        stage(block=block, rates=rates, down=down, stride=1)
    able = str(refused.value).partition("one of ")[2].partition(";")[0].split(", ")
    assert {"nonbt", "bottle", "plain"} <= set(able)
    assert block not in able
    for each in able:
        assert beside(parts=[stage(block=each, width=part.width, stride=1) for part in DETAIL.parts])


def test_a_composite_pair_can_have_a_stride() -> None:
    """Only the second convolution is split, so a ResNet-like opening works."""
    crossed = with_stages("swiftnet-rn18", factorization="composite")
    assert space.parameters(crossed, 19) < space.parameters(space.load("swiftnet-rn18"), 19)


def test_architectures_cannot_be_modified() -> None:
    erfnet = space.load("erfnet")
    with pytest.raises(FrozenInstanceError):
        erfnet.levels = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        erfnet.stem.width = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fuse", "width"),
    [("none", 32), ("add", 32), ("concat", 64), ("image", 35), ("image_add", 35), ("image_concat", 67), ("fir", 67)],
)
def test_the_width_after_a_fusion_is_derived(fuse: str, width: int) -> None:
    assert stage(down="cat", fuse=fuse).out_width == width


def test_published_networks_have_the_expected_strides() -> None:
    assert space.load("erfnet").output_stride == 8
    assert space.load("ndnet45-ende").output_stride == 16
    assert space.load("swiftnet-rn18").tap_strides == {4: 0, 8: 1, 16: 2, 32: 3}
    assert space.load("swiftnet-mnv2").tap_strides == {4: 1, 8: 2, 16: 4, 32: 6}
