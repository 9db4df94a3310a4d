"""What is trained as several paths leaves the weights of one convolution, and goes on from either."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nas.data import Dataset
from nas.training import Recipe
from nas.training.trainer import Trainer
from space import Architecture
from space.paths import SeveralPaths

RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, epochs=2, batch_size=4)
NARROW = """
stem: {kind: convs, width: 8, kernel: 3, convolutions: 1, image: false}
stages:
- {block: plain, width: 8, depth: 2, stride: 2}
- {block: plain, width: 12, depth: 1, stride: 2}
- {block: plain, width: 16, depth: 1, stride: 2}
context: {kind: pyramid, order: parallel, width: 8, strides: [2]}
decoder: null
head: {kind: preact3, width: 8}
activation: relu
levels: 1
norm_epsilon: 0.001
bias: false
align_corners: false
auxiliary:
- {stage: 0, width: 8, weight: 0.4, kind: preact3, branch: detail, tap: sum}
detail:
  start: 0
  exchange: both
  parts:
  - {block: plain, width: 8, depth: 1, stride: 1}
  - {block: plain, width: 8, depth: 1, stride: 1}
rep: true
"""


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return Architecture.from_yaml(NARROW)


@pytest.fixture(scope="module")
def trained(architecture: Architecture, dataset: Dataset) -> Trainer:
    trainer = Trainer(architecture, dataset, RECIPE, threads=1)
    trainer.run_epoch()
    return trainer


def several(trainer: Trainer) -> int:
    return sum(isinstance(module, SeveralPaths) for module in trainer.network.modules())


def logits(trainer: Trainer) -> Tensor:
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = trainer.network.eval()(image)
    return found


def test_its_weights_are_those_of_the_network_that_runs(architecture, dataset, trained) -> None:
    network = architecture.build(len(dataset.classes)).eval()
    network.load_state_dict(trained.weights())
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(image), logits(trained), rtol=1e-4, atol=1e-4)
    assert several(trained) == 1 + 4 + 2 + 2  # stem, trunk, branch, the pyramid's


def test_it_goes_on_from_all_paths_as_all_paths(architecture, dataset, trained) -> None:
    again = Trainer(architecture, dataset, RECIPE, threads=1, weights=trained.trained_weights())
    assert several(again) == several(trained)
    torch.testing.assert_close(logits(again), logits(trained), rtol=0, atol=0)


def test_it_goes_on_from_one_convolution_as_one(architecture, dataset, trained) -> None:
    again = Trainer(architecture, dataset, RECIPE, threads=1, weights=trained.weights())
    assert several(again) == 0
    torch.testing.assert_close(logits(again), logits(trained), rtol=1e-4, atol=1e-4)
    again.run_epoch()
    assert again.weights().keys() == trained.weights().keys()


def test_a_checkpoint_has_all_paths(architecture, dataset, trained, tmp_path) -> None:
    trained.save(tmp_path / "checkpoint.pt")
    again = Trainer(architecture, dataset, RECIPE, threads=1)
    again.restore(tmp_path / "checkpoint.pt")
    torch.testing.assert_close(logits(again), logits(trained), rtol=0, atol=0)


def test_its_memory_is_counted_with_all_paths(architecture, dataset) -> None:
    from space.count import memory

    counted = memory(architecture, (32, 48), 3)
    network = architecture.build(3, trained=True)
    assert counted.trained_parameters == sum(each.numel() for each in network.parameters())
    outputs: list[int] = []
    for module in network.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, given, output: outputs.append(output.numel()))
    network(torch.rand(2, 3, 32, 48))
    convolutions_and_norms = sum(outputs) // 2
    assert counted.outputs > convolutions_and_norms
