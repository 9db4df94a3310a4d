"""Contract of decoders: every file in space/decoders and every installed decoder of another package is tested here."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass, replace

import pytest
import torch

import space
from nas.report.words import describe
from space import Architecture, ArchitectureError, UserError, decoders
from space.axes import ranges
from space.block import LAST
from space.scale import parts, scale_width, with_part

pytestmark = pytest.mark.share(3)

KINDS = tuple(decoders.kinds())


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_is_a_frozen_dataclass_with_its_kind_as_first_field(kind) -> None:
    value = decoders.kinds()[kind]
    assert is_dataclass(value)
    assert value.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert fields(value)[0].name == "kind"
    assert typing.get_args(typing.get_type_hints(value)["kind"]) == (kind,)


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_draws_every_decoder_and_its_networks_can_be_built(kind, draws) -> None:
    assert kind in ranges()["decoder"]
    assert set(decoders.kinds()[kind].axes) <= set(ranges())
    for architecture in draws({"decoder": kind}):
        assert architecture.decoder is not None
        assert architecture.decoder.kind == kind
        network = architecture.build(5).train()
        logits = network(torch.rand(2, 3, 37, 54))
        assert logits.shape == (2, 5, 37, 54)
        logits.square().mean().backward()
        assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_decoder_widths_follow_a_factor_and_can_change_alone(kind, draws) -> None:
    for architecture in draws({"decoder": kind}):
        decoder = architecture.decoder
        assert scale_width(architecture, 1.0).decoder == decoder
        wider = scale_width(architecture, 2.0).decoder
        assert wider.first_width() == 2 * decoder.first_width()
        assert wider.largest_width() >= decoder.largest_width() >= decoder.first_width()
        part = len(architecture.stages)
        assert parts(architecture) > part
        changed = with_part(architecture, part, 1)
        assert changed.decoder.first_width() == decoder.first_width() + 4
        assert replace(changed, decoder=decoder) == architecture


@pytest.mark.parametrize("kind", KINDS)
def test_the_latency_of_a_decoder_is_estimated(kind, draws, table) -> None:
    for architecture in draws({"decoder": kind}):
        milliseconds = table.estimate(architecture, 5)
        assert 0 < milliseconds < table.estimate(scale_width(architecture, 4.0), 5)


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_decoder_layers_begin_with_decoder(kind, draws) -> None:
    for architecture in draws({"decoder": kind}, 2):
        names = {name for name, _ in architecture.build(5).named_parameters()}
        without = {name for name in names if name.startswith(("stem.", "stage", "head."))}
        assert names - without
        assert all(name.startswith("decoder.") for name in names - without)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_blocks_of_a_decoder_can_be_exchanged(kind, draws) -> None:
    for architecture in draws({"decoder": kind}):
        rows = architecture.rows()
        assert architecture.with_rows(rows) == architecture
        assert set(rows) >= {f"stage{index}" for index in range(len(architecture.stages))}
        for name, row in rows.items():
            if row.removable:
                kept = [index for index in range(row.depth) if index != row.removable[-1]]
                shorter = architecture.with_rows({**rows, name: row.kept(kept)})
                assert shorter.rows()[name].depth == row.depth - 1
                assert {each: shorter.rows()[each] for each in rows if each != name} == {
                    each: rows[each] for each in rows if each != name
                }


@pytest.mark.parametrize("kind", KINDS)
def test_a_decoder_is_described_in_words(kind, draws) -> None:
    for architecture in draws({"decoder": kind}):
        words = describe(architecture)["Decoder"]
        assert str(architecture.decoder.first_width()) in words
        assert words != describe(replace(scale_width(architecture, 2.0)))["Decoder"]


def test_each_decoder_of_this_package_has_a_position_of_its_own() -> None:
    places = [kind.position for kind in decoders.kinds().values() if kind.position < LAST]
    assert places == sorted(set(places))


def test_an_unknown_decoder_is_refused_with_the_known_ones_and_the_nearest() -> None:
    text = space.load("swiftnet-rn18").to_yaml().replace("kind: ladder", "kind: laddder")
    with pytest.raises(
        UserError, match=r"decoder.kind: expected one of .*ladder.*; got 'laddder'; did you mean 'ladder'"
    ):
        Architecture.from_yaml(text)


def test_an_image_pyramid_needs_a_decoder_that_joins_it() -> None:
    pyramid = space.load("swiftnet-rn18-pyramid")
    with pytest.raises(ArchitectureError, match="levels: an image pyramid needs"):
        replace(pyramid, decoder=None)
