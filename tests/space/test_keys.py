"""The key of an architecture: short, stable, and dependent on every field, as the text is."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import space
from space import Architecture
from space.context import PoolingPyramid, SpatialPyramid
from space.decoders.cat import CatDecoder
from space.decoders.deconv import DeconvDecoder
from space.decoders.ladder import LadderDecoder
from space.decoders.steps import JoinStep, StepwiseDecoder
from space.detail import Detail
from space.head import Auxiliary, Head
from space.stage import DecoderStep, Stage
from space.stem import Stem


def test_the_key_is_the_same_in_every_process() -> None:
    program = "import space; print(*[space.load(name).key for name in space.published()])"
    seen = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        run = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=120
        )
        seen.add(run.stdout.strip())
    assert seen == {" ".join(space.load(name).key for name in space.published())}


def test_keys_are_short_and_all_different() -> None:
    keys = [space.load(name).key for name in space.published()]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)


def test_equal_architectures_have_equal_keys() -> None:
    parent = space.load("fplnet")
    written_as_integers = replace(parent, stages=tuple(replace(stage, dropout=0) for stage in parent.stages))
    assert written_as_integers == parent
    assert written_as_integers.key == parent.key
    assert hash(written_as_integers) == hash(parent)
    one, other = (replace(parent, auxiliary=(Auxiliary(stage=0, width=8, weight=weight),)) for weight in (1, 1.0))
    assert one == other
    assert one.key == other.key
    norms = ("norm_momentum", "head_norm_epsilon", "head_norm_momentum")
    one, other = (replace(parent, **dict(zip(norms, each, strict=True))) for each in ((1, 0, 1), (1.0, 0.0, 1.0)))
    assert one == other
    assert one.key == other.key
    counts = {"stage0.block0.reduce": 8, "stem.conv0": 20}
    assert replace(parent, channels=counts).key == replace(parent, channels=dict(reversed(counts.items()))).key


def base() -> Architecture:
    """A small architecture in which each field can be changed alone."""
    return Architecture(
        stem=Stem(kind="convs", width=8),
        stages=(
            Stage(block="nonbt", width=16, depth=1, stride=2),
            Stage(block="nonbt", width=16, depth=1, stride=2),
        ),
        context=None,
        decoder=None,
        head=Head(kind="linear"),
        activation="relu",
        levels=1,
        norm_epsilon=1e-3,
        bias=False,
        align_corners=False,
    )


def with_stage(**changes: object) -> Architecture:
    parent = base()
    return replace(parent, stages=(parent.stages[0], replace(parent.stages[1], **changes)))  # type: ignore[arg-type]


LADDER = LadderDecoder(width=16)
CONTEXT = SpatialPyramid(bottleneck=8, level_width=4, grids=(2, 1))
STEP = DecoderStep(width=16, depth=1, block="nonbt")
AUXILIARY = Auxiliary(stage=0, width=8, weight=0.4)
JOIN = JoinStep(stride=4, join="add", width=8)
HALVING = (Stage(block="nonbt", width=16, depth=1, stride=2),)
PART = Stage(block="nonbt", width=16, depth=1, stride=1)
DETAIL = Detail(start=0, exchange="both", parts=(PART, PART))
POOLS = PoolingPyramid(order="deep", width=8, strides=(2,))


def with_steps(**changes: object) -> Architecture:
    steps = (STEP, replace(STEP, **changes))  # type: ignore[arg-type]
    return replace(base(), decoder=DeconvDecoder(projection=0, steps=steps), head=Head(kind="deconv2"))


def beside() -> Architecture:
    """An architecture with a detail branch."""
    return replace(base(), stages=HALVING * 3, detail=DETAIL)


VARIANTS: dict[str, Callable[[], Architecture]] = {
    "nothing": base,
    "Architecture.stem": lambda: replace(base(), stem=Stem(kind="convs", width=12)),
    "Architecture.stages": lambda: replace(base(), stages=base().stages * 2),
    "Architecture.decoder": lambda: replace(base(), decoder=LADDER),
    "Architecture.context": lambda: replace(base(), decoder=LADDER, context=CONTEXT),
    "Architecture.head": lambda: replace(base(), head=Head(kind="preact")),
    "Head.shuffle": lambda: replace(base(), head=Head(kind="linear", shuffle=2)),
    "Architecture.label_stride": lambda: replace(base(), label_stride=2),
    "Architecture.activation": lambda: replace(base(), activation="prelu"),
    "Architecture.levels": lambda: replace(base(), decoder=LADDER, levels=2),
    "Architecture.norm_epsilon": lambda: replace(base(), norm_epsilon=1e-5),
    "Architecture.bias": lambda: replace(base(), bias=True),
    "Architecture.align_corners": lambda: replace(base(), align_corners=True),
    "Architecture.auxiliary": lambda: replace(base(), auxiliary=(AUXILIARY,)),
    "Architecture.channels": lambda: replace(base(), channels={"stem.conv0": 7}),
    "Stem.kind": lambda: replace(base(), stem=Stem(kind="cat", width=8)),
    "Stem.width": lambda: replace(base(), stem=Stem(kind="convs", width=9)),
    "Stem.kernel": lambda: replace(base(), stem=Stem(kind="convs", width=8, kernel=5)),
    "Stem.convolutions": lambda: replace(base(), stem=Stem(kind="convs", width=8, convolutions=2)),
    "Stem.image": lambda: replace(base(), stem=Stem(kind="convs", width=8, image=True)),
    "Stage.block": lambda: with_stage(block="sep"),
    "Stage.width": lambda: with_stage(width=20),
    "Stage.depth": lambda: with_stage(depth=2),
    "Stage.stride": lambda: with_stage(stride=1),
    "Stage.rates": lambda: with_stage(rates=(2,)),
    "Stage.factorization": lambda: with_stage(factorization="composite"),
    "Stage.down": lambda: with_stage(down="cat", width=24),
    "Stage.fuse": lambda: with_stage(down="cat", width=24, fuse="add"),
    "Stage.dropout": lambda: with_stage(dropout=0.1),
    "Stage.expansion": lambda: with_stage(expansion=6),
    "Stage.pairwise_fusion": lambda: with_stage(pairwise_fusion="stage1"),
    "SpatialPyramid.bottleneck": lambda: replace(base(), decoder=LADDER, context=replace(CONTEXT, bottleneck=9)),
    "SpatialPyramid.level_width": lambda: replace(base(), decoder=LADDER, context=replace(CONTEXT, level_width=5)),
    "SpatialPyramid.grids": lambda: replace(base(), decoder=LADDER, context=replace(CONTEXT, grids=(1, 2))),
    "DecoderStep": with_steps,
    "DecoderStep.width": lambda: with_steps(width=12),
    "DecoderStep.depth": lambda: with_steps(depth=2),
    "DecoderStep.block": lambda: with_steps(block="sep"),
    "DecoderStep.rates": lambda: with_steps(rates=(2,)),
    "DecoderStep.factorization": lambda: with_steps(factorization="all"),
    "DecoderStep.dropout": lambda: with_steps(dropout=0.3),
    "DecoderStep.expansion": lambda: with_steps(expansion=2),
    "DecoderStep.pairwise_fusion": lambda: with_steps(pairwise_fusion="stage1"),
    "DeconvDecoder.projection": lambda: replace(with_steps(), decoder=DeconvDecoder(projection=8, steps=(STEP, STEP))),
    "CatDecoder": lambda: replace(base(), decoder=CatDecoder(tap=0, width=8)),
    "CatDecoder.width": lambda: replace(base(), decoder=CatDecoder(tap=0, width=9)),
    "LadderDecoder.width": lambda: replace(base(), decoder=LadderDecoder(width=12)),
    "LadderDecoder.taps": lambda: replace(base(), decoder=LadderDecoder(width=16, taps="relu")),
    "Head": lambda: replace(base(), head=Head(kind="sep", width=8)),
    "Head.width": lambda: replace(base(), head=Head(kind="sep", width=9)),
    "Head.kind": lambda: replace(base(), head=Head(kind="linear_nobias")),
    "Auxiliary.stage": lambda: replace(base(), auxiliary=(replace(AUXILIARY, stage=1),)),
    "Auxiliary.width": lambda: replace(base(), auxiliary=(replace(AUXILIARY, width=9),)),
    "Auxiliary.kind": lambda: replace(base(), auxiliary=(replace(AUXILIARY, kind="conv3"),)),
    "Stem.halvings": lambda: replace(base(), stem=Stem(kind="convs", width=8, convolutions=2, halvings=2)),
    "Stem.rising": lambda: replace(base(), stem=Stem(kind="convs", width=8, convolutions=2, rising=True)),
    "Stem.separable": lambda: replace(base(), stem=Stem(kind="convs", width=8, convolutions=2, separable=True)),
    "Stem.image_average": lambda: replace(
        base(), stem=Stem(kind="convs", width=8, convolutions=2, image=True, image_average=True)
    ),
    "StepwiseDecoder.top": lambda: replace(base(), decoder=StepwiseDecoder(top=8, steps=(JOIN,))),
    "StepwiseDecoder.steps": lambda: replace(base(), decoder=StepwiseDecoder(top=9, steps=(replace(JOIN, width=9),))),
    "JoinStep.stride": lambda: replace(base(), decoder=StepwiseDecoder(top=8, steps=(replace(JOIN, stride=2),))),
    "JoinStep.join": lambda: replace(base(), decoder=StepwiseDecoder(top=8, steps=(replace(JOIN, join="separable"),))),
    "JoinStep.width": lambda: replace(base(), decoder=StepwiseDecoder(top=8, steps=(replace(JOIN, width=10),))),
    "JoinStep.lateral": lambda: replace(
        base(), decoder=StepwiseDecoder(top=8, steps=(replace(JOIN, join="concat", lateral=4),))
    ),
    "Stage.block_options": lambda: replace(
        base(),
        stages=tuple(
            Stage(block="stdc", width=16, depth=1, stride=2, block_options={"parts": parts}) for parts in (3, 4)
        ),
    ),
    "StepwiseDecoder.bins": lambda: replace(
        base(), decoder=StepwiseDecoder(top=8, steps=(JOIN,), bins=(1, 2), bin_width=2)
    ),
    "StepwiseDecoder.bin_width": lambda: replace(
        base(), decoder=StepwiseDecoder(top=8, steps=(JOIN,), bins=(1, 2), bin_width=3)
    ),
    "Auxiliary.branch": lambda: replace(beside(), auxiliary=(replace(AUXILIARY, branch="detail"),)),
    "Auxiliary.tap": lambda: replace(base(), auxiliary=(replace(AUXILIARY, tap="sum"),)),
    "Stem.bias": lambda: replace(base(), stem=Stem(kind="convs", width=8, bias=True)),
    "Architecture.detail": beside,
    "Detail.exchange": lambda: replace(beside(), detail=replace(DETAIL, exchange="up")),
    "Detail.parts": lambda: replace(beside(), detail=replace(DETAIL, parts=(PART, replace(PART, width=8)))),
    "Detail.start": lambda: replace(beside(), stages=HALVING * 4, detail=replace(DETAIL, start=1)),
    "PoolingPyramid": lambda: replace(base(), context=POOLS),
    "PoolingPyramid.order": lambda: replace(base(), context=replace(POOLS, order="parallel")),
    "PoolingPyramid.width": lambda: replace(base(), context=replace(POOLS, width=9)),
    "PoolingPyramid.strides": lambda: replace(base(), context=replace(POOLS, strides=(2, 4))),
    "Architecture.norm_momentum": lambda: replace(base(), norm_momentum=0.03),
    "Architecture.head_norm_epsilon": lambda: replace(base(), head_norm_epsilon=1e-5),
    "Architecture.head_norm_momentum": lambda: replace(base(), head_norm_momentum=0.2),
    "Architecture.rep": lambda: replace(base(), rep=True),
    "Auxiliary.weight": lambda: replace(base(), auxiliary=(replace(AUXILIARY, weight=0.5),)),
}


def test_every_field_is_part_of_the_key_and_of_the_text() -> None:
    built = {name: make() for name, make in VARIANTS.items()}
    assert len({each.key for each in built.values()}) == len(VARIANTS)
    assert all(Architecture.from_yaml(each.to_yaml()) == each for each in built.values())


def test_the_tested_variants_cover_every_field() -> None:
    decoders = (DecoderStep, DeconvDecoder, LadderDecoder, JoinStep, StepwiseDecoder)
    values = (Architecture, Stem, Stage, SpatialPyramid, PoolingPyramid, Detail, *decoders, Head, Auxiliary)
    for cls in values:
        for field in dataclasses.fields(cls):
            if (cls.__name__, field.name) in (("DeconvDecoder", "steps"), ("DeconvDecoder", "kind")):
                continue  # one consists of the DecoderStep variants, the other has a single value
            if field.name == "kind" and cls in (LadderDecoder, StepwiseDecoder, SpatialPyramid, PoolingPyramid):
                continue
            if (cls.__name__, field.name) == ("DecoderStep", "block_options"):
                continue  # tests/contracts covers it with a kind that has options
            assert f"{cls.__name__}.{field.name}" in VARIANTS
