"""Networks trained as several paths leave the weights of one convolution; trainings resume from both forms."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.data import Dataset
from nas.training import Recipe
from nas.training.trainer import Trainer
from space import Architecture
from space.count import groups, memory
from space.paths import ReparameterizedConv

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
    return sum(isinstance(module, ReparameterizedConv) for module in trainer.network.modules())


def logits(trainer: Trainer) -> Tensor:
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = trainer.network.eval()(image)
    return found


def test_weights_after_a_training_are_those_of_the_folded_network(architecture, dataset, trained) -> None:
    network = architecture.build(len(dataset.classes)).eval()
    network.load_state_dict(trained.weights())
    image = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(network(image), logits(trained), rtol=1e-4, atol=1e-4)
    assert several(trained) == 1 + 4 + 2 + 2  # stem, trunk, branch, pyramid


def test_a_training_from_weights_of_all_paths_trains_all_paths(architecture, dataset, trained) -> None:
    again = Trainer(architecture, dataset, RECIPE, threads=1, weights=trained.trained_weights())
    assert several(again) == several(trained)
    torch.testing.assert_close(logits(again), logits(trained), rtol=0, atol=0)


def test_a_training_from_folded_weights_trains_one_convolution(architecture, dataset, trained) -> None:
    again = Trainer(architecture, dataset, RECIPE, threads=1, weights=trained.weights())
    assert several(again) == 0
    torch.testing.assert_close(logits(again), logits(trained), rtol=1e-4, atol=1e-4)
    again.run_epoch()
    assert again.weights().keys() == trained.weights().keys()


def test_initial_folded_weights_are_trained_as_one_convolution(architecture, dataset, trained) -> None:
    again = Trainer(architecture, dataset, RECIPE, threads=1, init=trained.weights())
    assert again.taken.reason.startswith("the file has no auxiliary0"), "no other layer starts at random"
    assert several(again) == 0
    assert not again.is_reparameterized
    torch.testing.assert_close(logits(again), logits(trained), rtol=1e-4, atol=1e-4)
    assert several(Trainer(architecture, dataset, RECIPE, threads=1, init=trained.trained_weights())) == several(
        trained
    )


def test_weights_with_normalisation_are_not_taken_for_folded_ones(architecture, dataset, trained) -> None:
    """The same network without `rep` has convolutions of the same names and shapes, with norms behind them."""
    twin = replace(architecture, rep=False).build(len(dataset.classes)).state_dict()
    started = Trainer(architecture, dataset, RECIPE, threads=1, init=twin)
    assert (started.taken.layers, several(started)) == ((), several(trained))


def test_a_network_that_takes_no_initial_weights_trains_all_paths(architecture, dataset, trained) -> None:
    """The weights are bit by bit those of a training without initial weights."""
    wider = replace(architecture, stem=replace(architecture.stem, width=12))
    started, plain = (Trainer(wider, dataset, RECIPE, threads=1, init=init) for init in (trained.weights(), None))
    assert started.taken.layers == ()
    assert several(started) == several(trained)
    assert all(torch.equal(each, plain.trained_weights()[name]) for name, each in started.trained_weights().items())


def test_a_network_that_takes_only_some_folded_weights_trains_all_paths(architecture, dataset, trained) -> None:
    """Otherwise the layers left at random would be trained without normalisations."""
    stages = (*architecture.stages[:2], replace(architecture.stages[2], width=24))
    started = Trainer(replace(architecture, stages=stages), dataset, RECIPE, threads=1, init=trained.weights())
    assert started.is_reparameterized
    assert several(started) == several(trained)
    assert re.fullmatch(
        r"stage2\.\S+ is of shape .*, and folded convolutions are taken all together or not at all",
        started.taken.reason,
    )


def test_a_checkpoint_records_the_form_of_its_training(architecture, dataset, trained, tmp_path) -> None:
    """Earlier versions trained all paths from an `init` that now means one convolution, and one from a partial one."""
    one = Trainer(architecture, dataset, RECIPE, threads=1, init=trained.weights())
    one.run_epoch()
    for begun, init in ((trained, trained.weights()), (one, None)):
        begun.save(tmp_path / "checkpoint.pt")
        again = Trainer(architecture, dataset, RECIPE, threads=1, init=init)
        assert several(again) != several(begun)
        again.restore(tmp_path / "checkpoint.pt")
        assert (again.epoch, several(again), again.weights().keys()) == (1, several(begun), begun.weights().keys())
        torch.testing.assert_close(logits(again), logits(begun), rtol=0, atol=0)
    again.run_epoch()
    assert again.epoch == 2


def test_a_checkpoint_has_all_paths(architecture, dataset, trained, tmp_path) -> None:
    trained.save(tmp_path / "checkpoint.pt")
    again = Trainer(architecture, dataset, RECIPE, threads=1)
    again.restore(tmp_path / "checkpoint.pt")
    torch.testing.assert_close(logits(again), logits(trained), rtol=0, atol=0)


def test_memory_of_a_training_is_counted_with_all_paths(architecture, dataset) -> None:
    counted = memory(architecture, (32, 48), 3)
    network = architecture.build(3, training_form=True)
    assert counted.trained_parameters == sum(each.numel() for each in network.parameters())
    name, count = list(groups(architecture).items())[-1]
    cut = replace(architecture, channels={name: count - 1})  # a cut network has one path
    one_path = memory(cut, (32, 48), 3)
    image = torch.rand(1, 3, 32, 48)
    expected = Computed.by(network, image) - Computed.by(cut.build(3), image)
    assert expected > 0
    assert counted.outputs - one_path.outputs == expected
    assert counted.alive == one_path.alive


class Computed(TorchDispatchMode):
    """Counts the numbers in the first result of each operation."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @classmethod
    def by(cls, network: nn.Module, image: Tensor) -> int:
        """The numbers that a network in evaluation mode computes of an image."""
        with torch.no_grad(), cls() as counted:
            network.eval()(image)
        return counted.total

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        given = operation(*arguments, **(keywords or {}))
        first = given[0] if isinstance(given, tuple) else given
        self.total += first.numel()
        return given
