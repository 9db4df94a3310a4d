"""Observed damage, compared with networks that are really cut."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pruning.damage import SHARES, assumed_damage, kept_first, observations, observed_damage
from pruning.depth import removable_blocks, remove_blocks
from pruning.importances.magnitude import magnitude
from pruning.surgery import Cutter
from space import Architecture
from space.network import Network

pytestmark = pytest.mark.share(12)

NETWORKS = (
    "fir and cat down with fpl",
    "raw image through two cats, deconv decoder",
    "image pyramid of two levels",
    "narrow sep with image stem",
)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, randomised: Callable, crossings: dict[str, Architecture]) -> Network:
    return randomised(crossings[request.param])


@pytest.fixture
def images(image: Callable) -> Tensor:
    return torch.cat([image(seed=seed, size=(20, 28)) for seed in range(4)])


def divergence(network: Network, whole: Network, images: Tensor) -> float:
    """The divergence of the classes of two networks, with batch norms in training mode."""
    with torch.no_grad():
        found = functional.log_softmax(network.train()(images), dim=1)
        wanted = functional.log_softmax(whole.train()(images), dim=1)
    return float(functional.kl_div(found, wanted, log_target=True, reduction="none").sum(dim=1).mean())


def test_damage_of_groups_is_that_of_the_cut_network(network: Network, images: Tensor, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    scores = magnitude(cutter, network)
    damage = observed_damage(cutter, network, scores, [images])
    compared = 0
    for name, full in list(zip(cutter.map.names, cutter.map.counts, strict=True))[::4]:
        count = max(1, math.ceil(SHARES[0] * full))
        if count == full:
            continue
        keep = cutter.everything.copy()
        keep[kept_first(cutter, scores, name)[count:]] = False
        alone = divergence(cutter.cut(network, keep), network, images)
        assert damage.groups[name][count] >= alone - 1e-12  # removing more never counts as less damage
        steps = sorted({max(1, math.ceil(share * full)) for share in SHARES} - {full}, reverse=True)
        if count == steps[0]:
            assert damage.groups[name][count] == pytest.approx(alone)
        compared += 1
    assert compared >= 3


def test_damage_of_blocks_is_that_of_the_network_without_them(network: Network, images: Tensor, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    damage = observed_damage(cutter, network, magnitude(cutter, network), [images])
    assert tuple(damage.blocks) == removable_blocks(network.architecture)
    for block, value in damage.blocks.items():
        assert value == pytest.approx(divergence(remove_blocks(network, [block]), network, images))


def test_more_removed_is_never_less_damage(network: Network, images: Tensor, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    scores = magnitude(cutter, network)
    for damage in (observed_damage(cutter, network, scores, [images]), assumed_damage(cutter, scores)):
        assert list(damage.groups) == list(cutter.map.names)
        for name, full in zip(cutter.map.names, cutter.map.counts, strict=True):
            curve = damage.groups[name]
            assert len(curve) == full + 1
            assert curve[0] == math.inf
            assert curve[full] == 0.0
            assert (np.diff(curve[1:]) <= 1e-15).all()


def test_channels_that_no_layer_uses_cause_no_damage(network: Network, images: Tensor, classes: int) -> None:
    """The channels are a quarter of a group, which its readers ignore."""
    cutter = Cutter(network.architecture, classes)
    name = max(cutter.map.names, key=lambda each: len(cutter.map.members(each)))
    members = cutter.map.members(name)
    gone = members[: len(members) // 4]
    with torch.no_grad():
        for node in cutter.graph.nodes:
            if node.kind in ("conv", "deconv") and not node.group_width:
                weight = network.layer(node.name).weight
                (weight if node.kind == "deconv" else weight.transpose(0, 1))[
                    torch.from_numpy(np.isin(cutter.read_positions(node), gone))
                ] = 0.0
    scores = np.ones(len(cutter.everything))
    scores[gone] = 0.0
    damage = observed_damage(cutter, network, scores, [images])
    assert damage.groups[name][1] > 1e-6
    assert damage.groups[name][len(members) - len(gone)] < 1e-4 * damage.groups[name][1]


def test_observing_leaves_the_network_unchanged_and_counts_every_pass(
    network: Network, images: Tensor, classes: int
) -> None:
    cutter = Cutter(network.architecture, classes)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        answers = network(images)
    seen: list[int] = []
    observed_damage(cutter, network, magnitude(cutter, network), [images], count=seen.append)
    assert seen == [len(images)] * observations(cutter, network)
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with torch.no_grad():
        assert torch.equal(network(images), answers)


@pytest.mark.share(3)
def test_batches_are_observed_separately(network: Network, images: Tensor, classes: int) -> None:
    """Each batch has its own statistics, and counts by its number of images."""
    cutter = Cutter(network.architecture, classes)

    def blocks(*batches: Tensor) -> Mapping[str, float]:
        return observed_damage(cutter, network, magnitude(cutter, network), batches).blocks

    few, more = blocks(images[:1]), blocks(images[1:])
    assert blocks(images[:1], images[1:]) == pytest.approx({name: (few[name] + 3 * more[name]) / 4 for name in few})


def test_blocks_that_must_stay_are_not_observed(network: Network, images: Tensor, classes: int) -> None:
    cutter = Cutter(network.architecture, classes)
    seen: list[int] = []
    damage = observed_damage(cutter, network, magnitude(cutter, network), [images[:1]], depth=False, count=seen.append)
    assert not damage.blocks
    assert len(seen) == observations(cutter, network, depth=False) < observations(cutter, network)
