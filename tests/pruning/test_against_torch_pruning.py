"""torch-pruning traces the module and finds the groups by itself; where it can, it agrees with ours."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch.nn.functional import cross_entropy

import space
from pruning.surgery import Cutter
from space import Architecture
from space.channels import FIXED, parametric
from space.decoders.ladder import LadderDecoder
from space.graph import Node
from space.network import Network

Members = set[tuple[str, str, int]]
SAMPLES = 3  # channels compared per layer, beside its first and its last


def _without_image(architecture: Architecture) -> Architecture:
    """The same with a plain first layer, no image joined later, and a ladder that reads activated features.

    torch-pruning does not see an image that is concatenated, and does not see layers that no output depends on: with
    taps before the last activation, that activation and its normalisation are such.
    """
    stem, decoder = architecture.stem, architecture.decoder
    stem = replace(stem, kind="convs") if stem.kind == "cat" else replace(stem, image=False)
    fuse = {"image": "none", "image_add": "add", "image_concat": "concat", "fir": "none"}
    stages = tuple(replace(stage, fuse=fuse.get(stage.fuse, stage.fuse)) for stage in architecture.stages)
    if isinstance(decoder, LadderDecoder):
        decoder = replace(decoder, taps="relu")
    return replace(architecture, stem=stem, stages=stages, decoder=decoder)


TRACEABLE = (
    "swiftnet-rn18",
    "swiftnet-mnv2",
    "ndnet45-fcn32",
    "ndnet45-ende",
    "erfnet",
    "fplnet-encoder",
    "fpl encoder under a ladder",
    "nonbt, conv_pool stem, cat decoder",
    "esp, all cats",
    "esp modules with image_concat, cat decoder",
    "fpl under sums of its first convolution",
    "image pyramid of two levels",
    "inverted with cats, relu6",
)


# Where channels of several layers are concatenated, torch-pruning's scores leave out layers whose place it cannot tell.
WITHOUT_CONCATENATIONS = (
    "swiftnet-rn18",
    "swiftnet-mnv2",
    "ndnet45-fcn32",
    "ndnet45-ende",
    "fplnet-encoder",
    "fpl encoder under a ladder",
    "esp modules with image_concat, cat decoder",
)


@pytest.fixture(params=TRACEABLE)
def network(request: pytest.FixtureRequest, randomised: Callable, crossings: dict[str, Architecture]) -> Network:
    name = request.param
    return randomised(_without_image(crossings[name] if name in crossings else space.load(name)))


def producers(cutter: Cutter) -> list[Node]:
    """Layers that make channels which can go."""
    dense = [node for node in parametric(cutter.graph) if node.kind in ("conv", "deconv") and not node.depthwise]
    return [node for node in dense if cutter.map.group_of_channel[cutter.positions(node)[0]] != FIXED]


def ours(cutter: Cutter) -> dict[int, Members]:
    """Channel to all (layer, side, index) that belong to it."""
    members: dict[int, Members] = {}
    for node in parametric(cutter.graph):
        for index, channel in enumerate(cutter.positions(node)):
            members.setdefault(int(channel), set()).add((node.name, "out", index))
        if node.kind in ("conv", "deconv") and not node.depthwise:
            for index, channel in enumerate(cutter.read_positions(node)):
                members.setdefault(int(channel), set()).add((node.name, "in", index))
    return members


def traced(network: Network, image: torch.Tensor) -> tp.DependencyGraph:
    graph = tp.DependencyGraph().build_dependency(network, example_inputs=image)
    network.eval()
    return graph


def out_group(graph: tp.DependencyGraph, layer: nn.Module, indices: list[int]) -> tp.Group:
    return graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=indices)


def theirs(graph: tp.DependencyGraph, network: Network, group: tp.Group) -> Members:
    names = {module: name for name, module in network.named_modules()}
    members: Members = set()
    for dependency, indices in group:
        layer = dependency.layer
        if layer not in names:  # torch-pruning's own stand-ins for cat, add and the like
            continue
        one_sided = isinstance(layer, (nn.BatchNorm2d, nn.PReLU)) or getattr(layer, "groups", 1) > 1
        outwards = one_sided or graph.is_out_channel_pruning_fn(dependency.pruning_fn)
        members |= {(names[layer], "out" if outwards else "in", index) for index in indices}
    return members


def test_groups_are_the_same(network: Network, image: Callable, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    expected, graph = ours(cutter), traced(network, image())
    rng = np.random.default_rng(0)
    for node in producers(cutter):
        channels = cutter.positions(node)
        some = {0, len(channels) - 1, *rng.integers(len(channels), size=SAMPLES).tolist()}
        for index in sorted(some):
            group = out_group(graph, network.layer(node.name), [index])
            assert theirs(graph, network, group) == expected[int(channels[index])], f"{node.name} channel {index}"


@pytest.fixture
def stock() -> ModuleType:
    """The study's re-expression of torch-pruning's importances."""
    path = Path(__file__).parents[2] / "studies" / "pruning" / "stock.py"
    spec = importlib.util.spec_from_file_location("stock", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("network", WITHOUT_CONCATENATIONS, indirect=True)
@pytest.mark.parametrize("importance", ["magnitude", "taylor"])
def test_the_importances_of_the_study_are_theirs(
    importance: str, network: Network, image: Callable, classes: int, stock: ModuleType
) -> None:
    cutter, picture = Cutter(network.architecture, classes), image()
    labels = torch.randint(classes, (len(picture), *picture.shape[-2:]), generator=torch.Generator().manual_seed(0))
    graph = traced(network, picture)
    if importance == "magnitude":
        scores, scorer = stock.group_magnitude(cutter, network), tp.importance.GroupMagnitudeImportance()
    else:
        batch = (picture, labels)
        scores, scorer = (
            stock.group_taylor(cutter, network, [batch], cross_entropy),
            tp.importance.GroupTaylorImportance(),
        )
        cross_entropy(network(picture), labels).backward()
    for node in producers(cutter):
        channels = cutter.positions(node)
        group = out_group(graph, network.layer(node.name), list(range(len(channels))))
        expected = scorer(group).double().numpy()
        found = scores[channels] / scores[channels].mean()
        np.testing.assert_allclose(found, expected, rtol=1e-4, err_msg=node.name)


def test_cuts_are_the_same(network: Network, image: Callable, random_keep: Callable, classes: int) -> None:
    cutter, picture = Cutter(network.architecture, classes), image()
    keep = random_keep(cutter, seed=1)
    expected = cutter.cut(network, keep)
    achieved, gone = copy.deepcopy(network), set()
    graph = traced(achieved, picture)
    for node in producers(cutter):
        left = [int(channel) for channel in cutter.positions(node) if int(channel) not in gone]
        indices = [index for index, channel in enumerate(left) if not keep[channel]]
        if indices:
            out_group(graph, achieved.layer(node.name), indices).prune()
            gone |= {left[index] for index in indices}
    assert gone == set(np.flatnonzero(~keep).tolist())
    weights = achieved.state_dict()
    for name, value in expected.state_dict().items():
        assert torch.equal(value, weights[name]), name
    with torch.no_grad():
        assert torch.equal(expected(picture), achieved(picture))
