"""A cut network is its architecture and its weights: YAML and safetensors rebuild it bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pruning.surgery import Cutter, Mask
from space import Architecture, Space, parameters
from space.network import Network

pytestmark = pytest.mark.share(16)

SIZES = ((64, 96), (45, 61))


def what_differs(network: Network, keep: Mask, image: Callable[..., Tensor], folder: Path) -> list[str]:
    """Cut a network, write, read and rebuild it; return the differences from the cut network."""
    classes = network.num_classes
    cut = Cutter(network.architecture, classes).cut(network, keep)
    save_file(cut.state_dict(), folder / "weights.safetensors")
    (folder / "architecture.yaml").write_text(cut.architecture.to_yaml(), "utf-8")

    architecture = Architecture.from_yaml((folder / "architecture.yaml").read_text("utf-8"))
    rebuilt = architecture.build(classes).eval()
    rebuilt.load_state_dict(load_file(folder / "weights.safetensors"))
    count = sum(parameter.numel() for parameter in cut.parameters())
    same = {
        "the architecture": architecture == cut.architecture,
        "the key": architecture.key == cut.architecture.key != network.architecture.key,
        "parameters": parameters(architecture, classes) == count < parameters(network.architecture, classes),
    }
    for size in SIZES:
        picture = image(size=size).float()
        with torch.no_grad():
            same[f"answers at {size}"] = torch.equal(rebuilt(picture), cut(picture))
    return [name for name, is_same in same.items() if not is_same]


def test_cut_published_networks_are_rebuilt_bit_for_bit(
    published, classes, randomised, image, random_keep, tmp_path
) -> None:
    keep = random_keep(Cutter(published, classes), seed=4)
    assert what_differs(randomised(published).float(), keep, image, tmp_path) == []


def test_cut_crossings_are_rebuilt_bit_for_bit(crossing, classes, randomised, image, random_keep, tmp_path) -> None:
    keep = random_keep(Cutter(crossing, classes), seed=4)
    assert what_differs(randomised(crossing).float(), keep, image, tmp_path) == []


def test_a_network_cut_twice_is_rebuilt_bit_for_bit(
    crossing, classes, randomised, image, random_keep, tmp_path
) -> None:
    network, cutter = randomised(crossing).float(), Cutter(crossing, classes)
    once = cutter.cut(network, random_keep(cutter, seed=5, share=0.8))
    keep = random_keep(Cutter(once.architecture, classes), seed=6)
    assert what_differs(once, keep, image, tmp_path) == []


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_cut_random_architectures_are_rebuilt_bit_for_bit(
    seed: int, narrow_space: Space, classes, randomised, image, random_keep, tmp_path
) -> None:
    network = randomised(narrow_space.sample(random.Random(seed))).float()
    share = random.Random(seed).uniform(0.1, 0.9)
    keep = random_keep(Cutter(network.architecture, classes), seed=seed, share=share)
    assert what_differs(network, keep, image, tmp_path) == []
