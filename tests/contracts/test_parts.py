"""Contract of all kinds of parts (blocks, decoders, detail branches, contexts, heads), on small architectures."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import get_args

import pytest
import torch

import space
import space.axes
from nas.export.comparison import compare, logits_of
from nas.export.formats.onnx import open_graph
from nas.export.graph import onnx_bytes
from nas.latency.estimates.work import unit, work_of
from nas.report.words import describe
from pruning.surgery import Cutter
from space import Architecture, blocks, decoders
from space.context import ContextOrder
from space.decoders.steps import JOINS
from space.detail import Exchange
from space.graph import Node
from space.scale import scale_width

pytestmark = pytest.mark.share(11)

ALONE = {"decoder": "none", "block": "nonbt", "stem.kind": "convs", "stem.halvings": 1, "stages": 3}
HALVING = {**ALONE, "down": "block", "factorization": "none", "stage.stride": 2}
BRANCHED = {"decoder": "none", "stages": 3, "down": "block", "stage.stride": 2, "detail": "both"}
FIXED = {
    **{f"block-{name}": {"block": name} for name in blocks.names()},
    **{f"decoder-{name}": {"decoder": name} for name in decoders.kinds()},
    "rep": {**ALONE, "block": "plain", "context": "pyramid", "stem.bias": False, "rep": True},
    **{f"detail-{name}": {**HALVING, "detail": name} for name in get_args(Exchange)},
    "detail-bottles": {**HALVING, "detail": "both", "detail.bottles": 1},
    **{f"detail-of-{name}": {**BRANCHED, "block": name} for name in ("sep", "inverted", "dblock", "plain", "bottle")},
    **{f"head-{name}": {**ALONE, "head": name} for name in space.axes.ranges()["head"]},
    **{f"join-{name}": {"decoder": "steps", "decoder.join": name} for name in JOINS},
    "rising separable stem": {**ALONE, "stem.halvings": 2, "stem.rising": True, "stem.separable": True},
    "shuffle": {**ALONE, "head.shuffle": 2},
    "labels": {**ALONE, "label_stride": 4},
    **{f"context-{name}": {**ALONE, "context": "pyramid", "context.order": name} for name in get_args(ContextOrder)},
}
PRICED = ("deconv", "max_pool", "average_pool", "grid_pool", "resize", "shuffle", "cat", "gate")  # beside convolutions
every_kind = pytest.mark.parametrize("fixed", FIXED.values(), ids=list(FIXED))


@every_kind
def test_an_architecture_survives_yaml_and_its_genotype(fixed, draws, small_space) -> None:
    for architecture in draws(fixed):
        assert Architecture.from_yaml(architecture.to_yaml()) == architecture
        within = small_space(fixed)
        answers = within.genotype(architecture)
        assert within.choose(lambda name, options, answers=answers: answers[name]) == architecture


@every_kind
def test_parameters_and_multiply_adds_are_those_of_pytorch(fixed, draws, flops) -> None:
    for architecture in draws(fixed):
        network = architecture.build(5).eval()
        assert space.parameters(architecture, 5) == sum(each.numel() for each in network.parameters())
        assert 2 * space.multiply_adds(architecture, (64, 96), 5) == flops(network, torch.zeros(1, 3, 64, 96))


@every_kind
def test_cutting_channels_is_exact(fixed, draws, lively, image, some_kept, unread) -> None:
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
def test_the_exported_graph_gives_the_outputs_of_pytorch(fixed, draws, lively) -> None:
    for architecture in draws({**fixed, "stage.depth": 1}, 1):
        network = lively(architecture).float()
        image = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
        agreement = compare(logits_of(network, image), open_graph(onnx_bytes(network, (64, 96), labels=False)), image)
        assert agreement.same_labels >= 0.999
        assert agreement.max_abs_difference < 1e-3 * float(network(image).detach().abs().max())


@every_kind
def test_architectures_are_scaled_estimated_and_described(fixed, draws, table) -> None:
    for architecture in draws(fixed):
        wide = scale_width(architecture, 4.0)
        assert space.parameters(wide, 5) > space.parameters(architecture, 5)
        assert table.estimate(wide, 5) > table.estimate(architecture, 5) > 0
        assert {"Stem", "Stage 1", "Head"} <= describe(wide).keys()
        assert all(describe(wide).values())


@every_kind
def test_each_layer_is_counted_as_work_of_its_kind(fixed, draws) -> None:
    """Work counts each layer as often as the graph has it: convolutions by group width, gates, poolings and so on."""
    for architecture in draws(fixed):
        expected = Counter(kind_of(node) for node in architecture.graph(5).nodes if node.kind in ("conv", *PRICED))
        assert counted(work_of(architecture, (64, 96), 5)) == expected


def kind_of(node: Node) -> str:
    """The kind of a layer, by the names of `counted`."""
    if node.kind != "conv":
        return node.kind
    return {0: "conv", 1: "depthwise"}.get(node.group_width, f"in groups of {node.group_width}")


def counted(work: Mapping[str, float]) -> Counter[str]:
    """The layers of each kind in some work. A mean counts as a pooling, a spread as the resizing that it replaces."""
    found: Counter[str] = Counter()
    for quantity, amount in work.items():
        kinds = re.findall(r"in groups of \d+|depthwise|mean|spread|" + "|".join((*PRICED, "conv")), quantity)
        if kinds and unit(quantity) == "count":
            found[{"mean": "grid_pool", "spread": "resize"}.get(kinds[-1], kinds[-1])] += int(amount)
    return found
