"""A cut network is its architecture and its weights: YAML and safetensors rebuild it bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pruning.surgery import Cutter
from space import Architecture, Space, parameters
from space.network import Network

SIZES = ((64, 96), (45, 61))


def assert_rebuilt(network: Network, keep: Callable, image: Callable, classes: int, folder: Path) -> None:
    cutter = Cutter(network.architecture, classes)
    cut = cutter.cut(network, keep(cutter))
    save_file(cut.state_dict(), folder / "weights.safetensors")
    (folder / "architecture.yaml").write_text(cut.architecture.to_yaml(), "utf-8")

    architecture = Architecture.from_yaml((folder / "architecture.yaml").read_text("utf-8"))
    rebuilt = architecture.build(classes).eval()
    rebuilt.load_state_dict(load_file(folder / "weights.safetensors"))
    assert architecture == cut.architecture
    assert architecture.key == cut.architecture.key != network.architecture.key
    count = sum(parameter.numel() for parameter in cut.parameters())
    assert parameters(architecture, classes) == count < parameters(network.architecture, classes)
    for size in SIZES:
        picture = image(size=size).float()
        with torch.no_grad():
            assert torch.equal(rebuilt(picture), cut(picture))


def test_published_networks(published, classes, randomised, image, random_keep, tmp_path) -> None:
    assert_rebuilt(randomised(published).float(), lambda c: random_keep(c, seed=4), image, classes, tmp_path)


def test_crossings(crossing, classes, randomised, image, random_keep, tmp_path) -> None:
    assert_rebuilt(randomised(crossing).float(), lambda c: random_keep(c, seed=4), image, classes, tmp_path)


def test_a_network_cut_twice(crossing, classes, randomised, image, random_keep, tmp_path) -> None:
    network, cutter = randomised(crossing).float(), Cutter(crossing, classes)
    once = cutter.cut(network, random_keep(cutter, seed=5, share=0.8))
    assert_rebuilt(once, lambda c: random_keep(c, seed=6), image, classes, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_random_architectures(
    seed: int, narrow_space: Space, classes, randomised, image, random_keep, tmp_path
) -> None:
    network = randomised(narrow_space.sample(random.Random(seed))).float()
    share = random.Random(seed).uniform(0.1, 0.9)
    assert_rebuilt(network, lambda c: random_keep(c, seed=seed, share=share), image, classes, tmp_path)
