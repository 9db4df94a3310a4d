"""torch-pruning traces the module and finds the groups by itself; where it can, it agrees with ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch_pruning as tp
from torch import nn

import space
from pruning.surgery import Cutter
from space import Architecture
from space.architecture import LadderDecoder, Stem
from space.channels import FIXED, parametric
from space.graph import Node
from space.network import Network

Members = set[tuple[str, str, int]]
SAMPLES = 8  # channels compared per layer, beside its first and its last


def _convs_stem(name: str) -> Architecture:
    """ERFNet behind one plain convolution: torch-pruning does not see an image that is concatenated."""
    whole = space.load(name)
    return replace(whole, stem=Stem(kind="convs", width=16))


def _no_image(name: str) -> Architecture:
    whole = space.load(name)
    stages = tuple(replace(stage, fuse="none") for stage in whole.stages)
    return replace(whole, stem=replace(whole.stem, image=False), stages=stages)


TRACEABLE: dict[str, Callable[[], Architecture]] = {
    "swiftnet-rn18": lambda: space.load("swiftnet-rn18"),
    "swiftnet-mnv2": lambda: space.load("swiftnet-mnv2"),
    "ndnet45-fcn32": lambda: space.load("ndnet45-fcn32"),
    "ndnet45-ende": lambda: space.load("ndnet45-ende"),
    "erfnet behind a convolution": lambda: _convs_stem("erfnet"),
    "erfnet-encoder behind a convolution": lambda: _convs_stem("erfnet-encoder"),
    "fplnet without the image": lambda: _no_image("fplnet"),
    "fplnet-encoder under a ladder, without the image": lambda: replace(
        _no_image("fplnet-encoder"), decoder=LadderDecoder(width=24)
    ),
}


@pytest.fixture(params=TRACEABLE)
def network(request: pytest.FixtureRequest, randomised: Callable) -> Network:
    return randomised(TRACEABLE[request.param]())


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
    transposed = isinstance(layer, nn.ConvTranspose2d)
    prune = tp.prune_conv_out_channels if not transposed else tp.prune_conv_out_channels
    return graph.get_pruning_group(layer, prune, idxs=indices)


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


def test_cuts_are_the_same(network: Network, image: Callable, classes: int) -> None:
    cutter, picture = Cutter(network.architecture, classes), image()
    rng = np.random.default_rng(1)
    theirs_cut, keep = copy.deepcopy(network), cutter.everything.copy()
    graph, done = traced(theirs_cut, picture), set()
    for node in producers(cutter):
        channels = cutter.positions(node)
        fresh = [index for index, channel in enumerate(channels) if int(channel) not in done]
        done |= set(channels.tolist())
        chosen = [index for index in fresh if rng.random() < 0.3]
        if len(chosen) == len(fresh):
            continue
        keep[channels[chosen]] = False
    for node in producers(cutter):
        pass
