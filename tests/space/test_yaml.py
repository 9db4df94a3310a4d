"""Architectures as YAML: exact both ways, a stable key, and everything malformed or hostile refused with a reason."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import space
from space import Architecture, ArchitectureError, UserError
from space.context import PoolingPyramid, SpatialPyramid
from space.decoders.cat import CatDecoder
from space.decoders.deconv import DeconvDecoder
from space.decoders.ladder import LadderDecoder
from space.decoders.steps import JoinStep, StepwiseDecoder
from space.detail import Detail
from space.head import Auxiliary, Head
from space.stage import DecoderStep, Stage
from space.stem import Stem

ERFNET = space.load("erfnet").to_yaml()


def refusal(text: str, source: str = "net.yaml") -> str:
    """The message with which a document is refused, which is always one line."""
    with pytest.raises(UserError) as caught:
        Architecture.from_yaml(text, source=source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(source)
    return message


@pytest.mark.parametrize("name", space.published())
def test_published_networks_survive_the_round_trip(name: str) -> None:
    architecture = space.load(name)
    again = Architecture.from_yaml(architecture.to_yaml())
    assert again == architecture
    assert (again.key, hash(again), again.to_yaml()) == (architecture.key, hash(architecture), architecture.to_yaml())


def test_random_architectures_survive_the_round_trip(random_architecture: Architecture) -> None:
    again = Architecture.from_yaml(random_architecture.to_yaml())
    assert again == random_architecture
    assert again.key == random_architecture.key


def test_a_pruned_architecture_survives_the_round_trip() -> None:
    pruned = replace(space.load("erfnet"), channels={"stage1.down.conv": 50, "stage0.down.conv": 40})
    again = Architecture.from_yaml(pruned.to_yaml())
    assert again == pruned
    assert again.channels == {"stage0.down.conv": 40, "stage1.down.conv": 50}


def test_any_yaml_reader_understands_what_is_written() -> None:
    plain = yaml.safe_load(ERFNET)
    assert plain["stages"][1]["rates"] == [2, 4, 8, 16]
    assert plain["norm_epsilon"] == 0.001
    assert plain["context"] is None


def test_defaults_may_be_left_out_and_order_is_free() -> None:
    text = """
    norm_epsilon: 1e-3   # a comment, and a number that YAML 1.1 calls text
    activation: relu
    head: {kind: linear}
    decoder: null
    context: ~
    stages: [{width: 32, depth: 2, stride: 2, block: nonbt}]
    stem: {width: 8, kind: convs}
    levels: 1
    bias: false
    align_corners: false
    """
    read = Architecture.from_yaml(text)
    assert read.stages == (Stage(block="nonbt", width=32, depth=2, stride=2),)
    assert read.norm_epsilon == 0.001
    assert Architecture.from_yaml(read.to_yaml()).key == read.key


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
    counts = {"stage0.block0.reduce": 8, "stem.conv0": 20}
    assert replace(parent, channels=counts).key == replace(parent, channels=dict(reversed(counts.items()))).key


def base() -> Architecture:
    """Small, with room to change each field alone."""
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
    """With a detail branch."""
    return replace(base(), stages=HALVING * 3, detail=DETAIL)


VARIANTS: dict[str, Callable[[], Architecture]] = {
    "nothing": base,
    "Architecture.stem": lambda: replace(base(), stem=Stem(kind="convs", width=12)),
    "Architecture.stages": lambda: replace(base(), stages=base().stages * 2),
    "Architecture.decoder": lambda: replace(base(), decoder=LADDER),
    "Architecture.context": lambda: replace(base(), decoder=LADDER, context=CONTEXT),
    "Architecture.head": lambda: replace(base(), head=Head(kind="preact")),
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


def test_the_variants_above_cover_every_field() -> None:
    decoders = (DecoderStep, DeconvDecoder, LadderDecoder, JoinStep, StepwiseDecoder)
    values = (Architecture, Stem, Stage, SpatialPyramid, PoolingPyramid, Detail, *decoders, Head, Auxiliary)
    for cls in values:
        for field in dataclasses.fields(cls):
            if (cls.__name__, field.name) in (("DeconvDecoder", "steps"), ("DeconvDecoder", "kind")):
                continue  # one is the sum of its DecoderStep variants, the other has a single value
            if field.name == "kind" and cls in (LadderDecoder, StepwiseDecoder, SpatialPyramid, PoolingPyramid):
                continue
            if (cls.__name__, field.name) == ("DecoderStep", "block_options"):
                continue  # tests/contracts take a kind that has some from YAML and back
            assert f"{cls.__name__}.{field.name}" in VARIANTS


def laughs() -> str:
    lines = ["a0: &a0 [lol, lol]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (laughs(), ":1: anchors and aliases are not accepted"),
        (ERFNET.replace("stem:", "stem: &stem"), ":1: anchors and aliases"),
        (ERFNET + "more: *stem\n", "anchors and aliases"),
        ("!!python/object/apply:os.system ['true']", ":1: YAML tags are not accepted"),
        (ERFNET.replace("width: 16", "width: !!python/name:os.system ''"), ":3: YAML tags"),
        (ERFNET.replace("width: 16", "width: !!int '16'"), ":3: YAML tags"),
        ("[" * 500, ":1: the document is nested too deeply"),
        ("\n".join(" " * n + "a:" for n in range(200)), "nested too deeply"),
        ("stages:\n" + "- 1\n" * 60_000, "too many entries"),
        ("# " + "x" * 2_000_000, "expected a small YAML file"),
        ("", "empty document"),
        ("# nothing\n", "empty document"),
        ("null", "expected a mapping"),
        ("- stem\n- stages\n", ":1: architecture: expected a mapping, got a list"),
        ("erfnet", ":1: architecture: expected a mapping, got 'erfnet'"),
        (ERFNET + "---\n" + ERFNET, "not valid YAML"),
        ("stem: {kind: cat", "not valid YAML"),
        ("stem:\n\tkind: cat", ":2: not valid YAML"),
        ("\x00\x01\x02", "not valid YAML"),
        ("? [a, b]\n: c\n", "expected a key, got a list"),
        ("<<: {stem: 1}\n", "unknown key '<<'"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_hostile_and_broken_documents_are_refused(text: str, reason: str) -> None:
    assert reason in refusal(text)


def test_nesting_beyond_what_the_parser_takes_is_refused() -> None:
    said = refusal("[" * 5000)
    ours, parsers = "the document is nested too deeply", "not valid YAML: exceeded maximum nesting depth"
    assert said.removeprefix("net.yaml:1: ").startswith((ours, parsers))  # libyaml 0.2.6 takes 1,000, older ones more


def line_of(text: str, fragment: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if fragment in line)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("stem:\n", "stemm:\n", "architecture: unknown key 'stemm'; did you mean 'stem'?"),
        ("depth: 5", "depht: 5", "architecture.stages[0]: unknown key 'depht'; did you mean 'depth'?"),
        ("align_corners: false", "zzz: 1", "architecture: unknown key 'zzz'; known: activation, align_corners"),
        ("bias: true\n", "bias: true\nlevels: 1\n", "key 'levels' is given twice"),
        ("depth: 5", "depth: 5.0", "architecture.stages[0].depth: expected a whole number, got '5.0'"),
        ("depth: 5", "depth: '5'", "depth: expected a whole number, got '5'"),
        ("depth: 5", "depth: true", "depth: expected a whole number, got 'true'"),
        ("depth: 5", "depth: [5]", "depth: expected a whole number, got a list"),
        ("depth: 5", "depth: {a: 5}", "depth: expected a whole number, got a mapping"),
        ("depth: 5", "depth: null", "depth: expected a whole number, got 'null'"),
        ("depth: 5", "depth: " + "9" * 5000, "depth: expected a whole number, got '999"),
        ("depth: 5", "depth: 99", "depth: expected 0 to 64, got 99"),
        ("bias: true", "bias: 1", "architecture.bias: expected true or false, got '1'"),
        ("dropout: 0.03", "dropout: .nan", "dropout: expected a number, got '.nan'"),
        ("dropout: 0.03", "dropout: lots", "dropout: expected a number, got 'lots'"),
        ("dropout: 0.03", "dropout: -0.1", "dropout: expected 0.0 to 0.9, got -0.1"),
        ("rates: [2, 4, 8, 16]", "rates: 2", "architecture.stages[1].rates: expected a list, got '2'"),
        ("rates: [2, 4, 8, 16]", "rates: []", "rates: expected at least one"),
        ("rates: [2, 4, 8, 16]", "rates: [2, x]", "architecture.stages[1].rates[1]: expected a whole number"),
        ("kind: deconv\n", "kind: decon\n", "got 'decon'; did you mean 'deconv'?"),
        ("  kind: deconv\n", "", "missing kind; give one of deconv, cat, ladder"),
        ("activation: relu", "activation: reul", "got 'reul'; did you mean 'relu'?"),
        ("activation: relu\n", "", "architecture: missing activation"),
        ("  width: 64\n", "  width: 8\n", "stages[0].width: cat adds to the 16 channels that come in"),
        ("channels: {}", "channels: {stem.cnov: 3}", "no group is called 'stem.cnov'; did you mean 'stem.conv'?"),
        ("channels: {}", "channels: {stem.conv: 14}", "expected 1 to 13 channels in 'stem.conv', got 14"),
        ("channels: {}", "channels: [1]", "channels: expected a mapping, got a list"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_a_wrong_value_is_named_with_its_line(old: str, new: str, reason: str) -> None:
    text = ERFNET.replace(old, new, 1)
    assert text != ERFNET
    message = refusal(text)
    assert reason in message
    line = int(message.split(":")[1])
    assert 1 <= line <= len(text.splitlines())
    key = new.split(":")[0].strip()
    if new and "unknown key" in reason:
        assert line == line_of(text, key)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_no_text_gets_past_the_reader_or_crashes_it(text: str) -> None:
    with pytest.raises(UserError):
        Architecture.from_yaml(text)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_document_is_read_or_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(ERFNET) - 1))
    length = data.draw(st.integers(0, 30))
    damaged = ERFNET[:start] + data.draw(st.text(max_size=10)) + ERFNET[start + length :]
    try:
        read = Architecture.from_yaml(damaged)
    except UserError as error:
        message = str(error)
    else:
        message = read.key
    assert message


def test_loading_by_name_path_and_neither(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(ERFNET)
    assert space.load(file) == space.load(str(file)) == space.load("erfnet")
    with pytest.raises(ArchitectureError, match="got 'erfnt'; did you mean 'erfnet'"):
        space.load("erfnt")
    with pytest.raises(ArchitectureError, match="known: dabnet, ddrnet23-slim, "):
        space.load("qqqqq")
    with pytest.raises(ArchitectureError, match=r"missing\.yaml: cannot read the architecture \(No such file"):
        space.load(tmp_path / "missing.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ArchitectureError, match=r"folder\.yaml: cannot read the architecture"):
        space.load(tmp_path / "folder.yaml")
    binary = tmp_path / "weights.yaml"
    binary.write_bytes(bytes(range(256)))
    with pytest.raises(ArchitectureError, match="not UTF-8 text"):
        space.load(binary)
    file.write_text(ERFNET.replace("depth: 5", "depth: five"))
    with pytest.raises(UserError, match=r"mine\.yaml:\d+: architecture\.stages\[0\]\.depth"):
        space.load(file)
