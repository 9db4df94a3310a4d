"""Contract of block kinds: every kind in space/blocks, and every installed kind of another package, is tested here."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import space
from nas.report.words import describe
from pruning.depth import removable_blocks, remove_blocks
from space import ArchitectureError, Space, blocks
from space.axes import ranges
from space.block import LAST, Unit
from space.scale import notches, parts, scale_width, with_part
from space.stage import Stage

pytestmark = pytest.mark.share(3)

KINDS = blocks.names()
OPENINGS = ("cat", "module", "block")
UNDER_STEPS = {"stages": 2, "decoder": "deconv", "decoder.depth": 1, "decoder.width": 64}
BRANCHED = {"decoder": "none", "stages": 3, "down": "block", "stage.stride": 2, "detail": "both"}


def stage_of(kind: str) -> Stage:
    """A stage with as many rates as the kind has branches."""
    block = blocks.kind(kind)
    rates = tuple(range(1, block.branches + 1)) or (1, 2)
    width = 48 * block.width_unit(block_numbers(kind))
    return Stage(block=kind, width=width, depth=2, stride=2, rates=rates, down=block.openings[0])


def block_numbers(kind: str) -> Unit:
    """One block of the kind, all its numbers at their defaults."""
    return Unit(width=48, rates=(1,), options=blocks.kind(kind).all_options(kind, {}))


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_draws_every_block_kind_and_its_networks_can_be_built(kind, draws) -> None:
    assert kind in ranges()["block"]
    for architecture in draws({"block": kind}):
        assert {stage.block for stage in architecture.stages} == {kind}
        network = architecture.build(5).train()
        logits = network(torch.rand(2, 3, 37, 54))
        assert logits.shape == (2, 5, 37, 54)
        logits.square().mean().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_kind_is_scaled_to_widths_that_it_allows(kind, draws) -> None:
    for architecture in draws({"block": kind}):
        sizes = []
        for factor in (0.05, 0.4, 1.0, 2.5):
            scaled = scale_width(architecture, factor)
            assert all(stage.width % stage.width_unit == 0 for stage in scaled.stages)
            sizes.append(space.parameters(scaled, 5))
        assert scale_width(architecture, 1.0) == architecture
        assert sizes == sorted(sizes)
        part = parts(architecture) - 1
        count = notches(architecture, part, vector=16)[-1]
        assert space.parameters(with_part(architecture, part, count), 5) > space.parameters(architecture, 5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if blocks.kind(kind).in_decoders])
def test_a_decoder_of_the_block_kind_is_drawn_and_scaled(kind) -> None:
    wide = {
        "block": (kind,),
        "decoder": ("deconv",),
        "decoder.width": (48, 64, 96),
        "decoder.depth": (1,),
        "stages": (2,),
    }
    for seed in range(4):
        architecture = Space(ranges=wide).sample(random.Random(seed))
        assert {step.block for step in architecture.decoder.steps} == {kind}
        for factor in (0.05, 0.4, 3.0):
            scaled = scale_width(architecture, factor)
            assert all(step.width % step.width_unit == 0 for step in scaled.decoder.steps)
            assert all(step.width >= step.narrowest for step in scaled.decoder.steps)


@pytest.mark.parametrize("kind", KINDS)
def test_the_latency_of_a_block_kind_is_estimated(kind, draws, table) -> None:
    for architecture in draws({"block": kind}):
        milliseconds = table.estimate(architecture, 5)
        assert milliseconds > 0
        assert table.estimate(scale_width(architecture, 4.0), 5) > milliseconds


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_can_be_removed_and_the_remaining_ones_keep_their_weights(kind, draws, lively, image) -> None:
    """One block of each row is removed: of the stages, the parts of a detail branch and the steps of a decoder."""
    architectures, removed = draws({"block": kind, "stage.depth": 2}), set()
    if "block" in blocks.kind(kind).openings:
        architectures += draws({"block": kind, "stage.depth": 2, **BRANCHED}, 1)
    if blocks.kind(kind).in_decoders:
        architectures += draws({"block": kind, **UNDER_STEPS}, 1)
    for architecture in architectures:
        network, rows = lively(architecture), architecture.rows()
        for row in [name for name in rows if rows[name].block == kind]:
            removable = [name for name in removable_blocks(architecture) if name.startswith(f"{row}.")]
            assert blocks.kind(kind).shortcut or not removable
            for name in removable[:1]:
                shorter = remove_blocks(network, [name])
                removed.add(row.rstrip("0123456789"))
                depths = {each: stage.depth - (each == row) for each, stage in rows.items()}
                assert {each: stage.depth for each, stage in shorter.architecture.rows().items()} == depths
                expected, found = without(network.state_dict(), name), shorter.state_dict()
                unread = expected.keys() - found.keys()  # activations behind a sum that is joined
                assert all(weight.endswith(".act.weight") for weight in unread)
                assert all(torch.equal(value, expected[weight]) for weight, value in found.items())
                assert torch.isfinite(shorter(image)).all()
    places = {"stage", *(["detail"] * ("block" in blocks.kind(kind).openings))}
    places |= {"decoder.step"} if blocks.kind(kind).in_decoders else set()
    assert removed == (places if blocks.kind(kind).shortcut else set())


def without(weights: Mapping[str, Tensor], block: str) -> dict[str, Tensor]:
    """The weights that stay when one block is removed, under their new names: later blocks of its row move up."""
    row, _, gone = block.rpartition("block")
    found = {}
    for name, value in weights.items():
        index, _, rest = name.removeprefix(f"{row}block").partition(".")
        if not name.startswith(f"{row}block"):
            found[name] = value
        elif index != gone:
            found[f"{row}block{int(index) - (int(index) > int(gone))}.{rest}"] = value
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_block_kind_is_described_in_words(kind, draws) -> None:
    for architecture in draws({"block": kind}):
        words = describe(architecture)["Stage 1"]
        assert blocks.kind(kind).words in words
        assert str(architecture.stages[0].width) in words
        assert all(option in words for option in blocks.kind(kind).options)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_opens_only_in_the_ways_that_its_block_kind_declares(kind) -> None:
    stage = stage_of(kind)
    for down in OPENINGS:
        if down in blocks.kind(kind).openings:
            assert replace(stage, down=down).down == down
        else:
            with pytest.raises(ArchitectureError, match="down: "):
                replace(stage, down=down)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stage_refuses_values_that_its_block_kind_cannot_have(kind) -> None:
    stage, block = stage_of(kind), blocks.kind(kind)
    with pytest.raises(ArchitectureError, match=r"block_options: .* has no 'nonsense'"):
        replace(stage, block_options={"nonsense": 1})
    for option in block.options:
        with pytest.raises(ArchitectureError, match=f"block_options.{option}: expected a value like"):
            replace(stage, block_options={option: [1]})
    with pytest.raises(ArchitectureError, match="width"):
        replace(stage, width=block.narrowest - 1)
    if block.branches:
        with pytest.raises(ArchitectureError, match=f"rates: {kind} has {block.branches} branches"):
            replace(stage, rates=(1,))
    if "factorization" not in block.shared:
        with pytest.raises(ArchitectureError, match=f"factorization: {kind} cannot be factorized"):
            replace(stage, factorization="composite", down=block.openings[0])


NUMBERS = [
    (kind, option)
    for kind in KINDS
    for option, about in blocks.kind(kind).options.items()
    if type(about.default) in (int, float)
]


@pytest.mark.parametrize(("kind", "option"), NUMBERS)
def test_each_number_of_a_block_kind_is_refused_or_can_be_built(kind, option, draws) -> None:
    (architecture, *_) = draws({"block": kind, "detail": "none"})
    built = []
    for value in (blocks.kind(kind).options[option].default, -16, -1, 0, 1, 10**12):
        try:
            stages = tuple(
                replace(stage, block_options={**stage.block_options, option: value}) for stage in architecture.stages
            )
        except ArchitectureError:
            continue
        built.append(value)
        assert replace(architecture, stages=stages).build(3)(torch.rand(1, 3, 64, 64)).shape == (1, 3, 64, 64)
    assert blocks.kind(kind).options[option].default in built


@pytest.mark.parametrize(("kind", "option"), NUMBERS)
def test_a_range_of_numbers_that_a_block_kind_cannot_have_leaves_nothing_to_draw(kind, option) -> None:
    with pytest.raises(ArchitectureError, match=r"space\.stages"):
        Space(ranges={"block": (kind,), f"{kind}.{option}": (-1,)}).sample(random.Random(0))


def test_each_block_kind_of_this_package_has_a_position_of_its_own() -> None:
    places = [blocks.kind(name).position for name in KINDS if blocks.kind(name).position < LAST]
    assert places == sorted(set(places))


def test_an_unknown_block_kind_is_refused_with_the_known_kinds() -> None:
    with pytest.raises(ArchitectureError, match=r"block: expected one of nonbt, fpl, .*; got 'nonbtt'.*'nonbt'"):
        Stage(block="nonbtt", width=16, depth=1, stride=2)
