"""Contract of fusions: every entry of `space.fusion.FUSIONS` is tested here."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import space
from pruning.surgery import Cutter
from space.axes import ranges
from space.fusion import FUSIONS

pytestmark = pytest.mark.share(6)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_has_the_output_width_that_it_declares(name, draws) -> None:
    assert name in ranges()["fuse"]
    for architecture in draws({"fuse": name, "down": "cat"}):
        graph = architecture.graph(5)
        activations = {node.name: node for node in graph.nodes if node.name.endswith("fuse_norm")}
        for index, stage in enumerate(architecture.stages):
            assert stage.fuse == name
            assert len(activations[f"stage{index}.fuse_norm"].channels) == stage.out_width
            assert stage.out_width == FUSIONS[name].out_width(stage.width)


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_joins_the_image_only_where_it_declares_so(name, draws) -> None:
    without_other_pools = {"decoder": "none", "context": "none", "stem.image_average": False}
    for architecture in draws({"fuse": name, "down": "cat", **without_other_pools}, 2):
        pools = [node for node in architecture.graph(5).nodes if node.kind == "average_pool"]
        assert bool(pools) == FUSIONS[name].image


@pytest.mark.parametrize("name", FUSIONS)
def test_cutting_channels_through_a_fusion_is_exact(name, draws, lively, image, some_kept, unread) -> None:
    for architecture in draws({"fuse": name, "down": "cat"}, 3):
        cutter, network = Cutter(architecture, 5), lively(architecture)
        keep = some_kept(cutter)
        expected = unread(cutter, network, keep, image)
        with torch.no_grad():
            found = cutter.cut(network, keep)(image)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("name", FUSIONS)
def test_a_fusion_changes_the_network(name) -> None:
    fplnet = space.load("fplnet-encoder")
    fused = replace(fplnet, stages=tuple(replace(stage, fuse=name) for stage in fplnet.stages))
    plain = replace(fplnet, stages=tuple(replace(stage, fuse="none") for stage in fplnet.stages))
    assert space.parameters(fused, 5) > space.parameters(plain, 5)
