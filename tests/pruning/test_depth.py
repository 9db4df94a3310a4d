"""Removing a block equals silencing it: if its branch adds nothing and its last layers change nothing, the network
without it gives the same answers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import space
from pruning.depth import removable_blocks, remove_blocks, shorten, without_blocks
from pruning.surgery import Cutter
from space import Architecture, ArchitectureError, Space, parameters
from space.channels import widths
from space.decoders.ladder import LadderDecoder
from space.network import Network

pytestmark = pytest.mark.share(16)

EXACT = 1e-10  # of the largest logit, in double precision
SEEN = 1e-7


def silence(network: Network, block: str) -> None:
    """Make a block the identity on its input, which is positive after an activation or passes the block unchanged."""
    module = network.get_submodule(block)
    with torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, nn.BatchNorm2d) and name.startswith(("2_norm", "project_norm", "widen_norm")):
                layer.weight.zero_()
                layer.bias.zero_()
            elif isinstance(layer, nn.BatchNorm2d) and name == "norm":  # of fpl's and esp's sum
                layer.weight.copy_((layer.running_var + layer.eps).sqrt())
                layer.bias.copy_(layer.running_mean)
            elif isinstance(layer, nn.PReLU) and name == "act":  # the block's last
                layer.weight.fill_(1.0)
            elif isinstance(layer, nn.Conv2d) and hasattr(module, "norm"):
                layer.weight.zero_()
                if layer.bias is not None:
                    layer.bias.zero_()


def some_blocks(architecture: Architecture, seed: int) -> list[str]:
    """Blocks whose only effect is the value that they add.

    The last block of a row is left out where a layer reads its sum before the activation and would then read another
    sum: a ladder with such taps, a detail branch and its partner, and a pyramid behind the last stage.
    """
    detail, stages = architecture.detail, len(architecture.stages)
    first = stages if architecture.context is None else stages - 1
    if isinstance(architecture.decoder, LadderDecoder) and architecture.decoder.taps == "sum":
        first = 0
    elif detail is not None:
        first = detail.start + 1
    summed = {f"stage{index}" for index in range(first, stages)} | set({} if detail is None else detail.rows())
    last = {f"{name}.block{row.depth - 1}" for name, row in architecture.rows().items() if name in summed}
    possible = [block for block in removable_blocks(architecture) if block not in last]
    chance = random.Random(seed)
    return [block for block in possible if chance.random() < 0.5] or possible[:1]


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A network without some blocks beside the one in which they are silenced, relative to its largest logit."""

    shorter: Network
    error: float
    effect: float
    """Of silencing."""
    counts: tuple[int, int]
    """Parameters that it has, and that its architecture says."""


def removed(network: Network, blocks: list[str], image: Callable[[], Tensor]) -> Removed:
    """Silence the blocks, then remove them."""
    with torch.no_grad():
        before = network(image())
    for block in blocks:
        silence(network, block)
    shorter = remove_blocks(network, blocks)
    with torch.no_grad():
        wanted, found = network(image()), shorter(image())
    scale = float(wanted.abs().max())
    return Removed(
        shorter=shorter,
        error=float((found - wanted).abs().max()) / scale,
        effect=float((before - wanted).abs().max()) / scale,
        counts=(
            sum(parameter.numel() for parameter in shorter.parameters()),
            parameters(shorter.architecture, network.num_classes),
        ),
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [("erfnet", 17), ("fplnet", 16), ("ndnet45-ende", 19), ("swiftnet-rn18", 4), ("ddrnet23-slim", 6)],
)
def test_published_networks_have_the_expected_number_of_removable_blocks(name: str, count: int) -> None:
    """All blocks except those that open a stage (5 + 8 + 2 + 2; 4 + 8 + 2 + 2; 4 + 12 + 6 less 3; 8 less 4;
    8 less 4 and 4 less 2).
    """
    assert len(removable_blocks(space.load(name))) == count


def test_removing_blocks_of_published_networks_equals_silencing_them(
    published: Architecture, randomised: Callable, image: Callable
) -> None:
    blocks = some_blocks(published, 0)
    found = removed(randomised(published), blocks, image)
    assert found.error <= EXACT
    assert not blocks or found.effect > SEEN
    assert found.counts[0] == found.counts[1]
    assert Architecture.from_yaml(found.shorter.architecture.to_yaml()) == found.shorter.architecture


def test_removing_blocks_of_crossings_equals_silencing_them(
    crossing: Architecture, randomised: Callable, image: Callable
) -> None:
    blocks = some_blocks(crossing, 0)
    found = removed(randomised(crossing), blocks, image)
    assert found.error <= EXACT
    assert not blocks or found.effect > SEEN
    assert found.counts[0] == found.counts[1]
    assert Architecture.from_yaml(found.shorter.architecture.to_yaml()) == found.shorter.architecture


@pytest.mark.parametrize("seed", range(20))
def test_removing_blocks_of_random_architectures_equals_silencing_them(
    seed: int, narrow_space: Space, randomised: Callable, image: Callable
) -> None:
    architecture = narrow_space.sample(random.Random(seed))
    blocks = some_blocks(architecture, seed)
    found = removed(randomised(architecture), blocks, image)
    assert found.error <= EXACT
    assert not blocks or found.effect > SEEN
    assert found.counts[0] == found.counts[1]
    assert Architecture.from_yaml(found.shorter.architecture.to_yaml()) == found.shorter.architecture


def test_blocks_of_a_pruned_network_can_be_removed_too(
    crossing: Architecture, randomised: Callable, random_keep: Callable, image: Callable, classes: int
) -> None:
    cutter = Cutter(crossing, classes)
    cut = cutter.cut(randomised(crossing), random_keep(cutter, seed=3))
    once = removed(cut, some_blocks(crossing, 1), image)
    again = Cutter(once.shorter.architecture, classes)
    cut_again = again.cut(once.shorter, random_keep(again, seed=4))
    twice = removed(cut_again, some_blocks(cut_again.architecture, 2), image)
    for found in (once, twice):
        assert found.error <= EXACT
        assert found.counts[0] == found.counts[1]
        assert Architecture.from_yaml(found.shorter.architecture.to_yaml()) == found.shorter.architecture


def test_estimated_widths_without_blocks_are_those_of_the_shortened_architecture(
    crossing: Architecture, classes: int
) -> None:
    """Allocation estimates networks by these widths, and builds them afterwards."""
    cutter, blocks = Cutter(crossing, classes), some_blocks(crossing, 5)
    chance = np.random.default_rng(0)
    counts = {name: int(chance.integers(1, full + 1)) for name, full in cutter.counts(cutter.everything).items()}
    shortened = shorten(crossing, blocks, cutter.map, classes)
    keep = cutter.map.keep_first(counts)
    built = without_blocks(cutter.narrowed(counts), blocks)
    assert shortened.narrowed(keep) == built
    assert shortened.widths(keep).given == widths(built.graph(classes), built.channels).given


def test_each_block_keeps_its_own_dilation() -> None:
    """ERFNet's second stage dilates by 2, 4, 8, 16 twice."""
    shorter = without_blocks(space.load("erfnet"), ["stage1.block1", "stage1.block4", "stage1.block6"])
    assert shorter.stages[1].depth == 5
    assert shorter.stages[1].rates == (2, 8, 16, 4, 16)


def test_a_block_that_cannot_be_removed_is_named() -> None:
    with pytest.raises(ArchitectureError, match=r"stage0\.block0.*stage0\.block1"):
        without_blocks(space.load("swiftnet-rn18"), ["stage0.block0"])
