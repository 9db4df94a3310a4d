"""What kinds of blocks, decoders, detail branches and contexts have in common, on small architectures of them."""

from __future__ import annotations

from typing import get_args

import pytest
import torch

import space
from nas.export.comparison import compare, logits_of
from nas.export.formats.onnx import open_graph
from nas.export.graph import onnx_bytes
from pruning.surgery import Cutter
from space import Architecture, blocks, decoders
from space.context import Order
from space.detail import Exchange

pytestmark = pytest.mark.share(7)

ALONE = {"decoder": "none", "block": "nonbt", "stem.kind": "convs", "stem.halvings": 1, "stages": 3}
HALVING = {**ALONE, "down": "block", "factorization": "none", "stage.stride": 2}
FIXED = {
    **{f"block-{name}": {"block": name} for name in blocks.names()},
    **{f"decoder-{name}": {"decoder": name} for name in decoders.kinds()},
    "rep": {**ALONE, "block": "plain", "context": "pyramid", "stem.bias": False, "rep": True},
    **{f"detail-{name}": {**HALVING, "detail": name} for name in get_args(Exchange)},
    "detail-bottles": {**HALVING, "detail": "both", "detail.bottles": 1},
    "shuffle": {**ALONE, "head.shuffle": 2},
    **{f"context-{name}": {**ALONE, "context": "pyramid", "context.order": name} for name in get_args(Order)},
}
every_kind = pytest.mark.parametrize("fixed", FIXED.values(), ids=list(FIXED))


@every_kind
def test_it_is_the_same_after_yaml_and_after_its_answers(fixed, draws, small_space) -> None:
    for architecture in draws(fixed):
        assert Architecture.from_yaml(architecture.to_yaml()) == architecture
        within = small_space(fixed)
        answers = within.genotype(architecture)
        assert within.choose(lambda name, options, answers=answers: answers[name]) == architecture


@every_kind
def test_it_is_counted_as_pytorch_counts(fixed, draws, flops) -> None:
    for architecture in draws(fixed):
        network = architecture.build(5).eval()
        assert space.parameters(architecture, 5) == sum(each.numel() for each in network.parameters())
        assert 2 * space.multiply_adds(architecture, (64, 96), 5) == flops(network, torch.zeros(1, 3, 64, 96))


@every_kind
def test_cutting_its_channels_is_exact(fixed, draws, lively, image, some_kept, unread) -> None:
    for architecture in draws(fixed):
        cutter, network = Cutter(architecture, 5), lively(architecture)
        keep = some_kept(cutter)
        cut = cutter.cut(network, keep)
        expected = unread(cutter, network, keep, image)
        with torch.no_grad():
            torch.testing.assert_close(cut(image), expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))
        assert sum(space.groups(cut.architecture).values()) < sum(space.groups(architecture).values())
        rebuilt = Architecture.from_yaml(cut.architecture.to_yaml()).build(5)
        assert {name: value.shape for name, value in rebuilt.state_dict().items()} == {
            name: value.shape for name, value in cut.state_dict().items()
        }


@every_kind
def test_it_is_exported_and_the_graph_answers_as_pytorch_does(fixed, draws, lively) -> None:
    for architecture in draws({**fixed, "stage.depth": 1}, 1):
        network = lively(architecture).float()
        image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
        agreement = compare(logits_of(network, image), open_graph(onnx_bytes(network, (64, 96), labels=False)), image)
        assert agreement.same_labels >= 0.999
        assert agreement.max_abs_difference < 1e-3 * float(network(image).detach().abs().max())
