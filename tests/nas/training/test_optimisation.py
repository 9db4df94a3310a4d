"""Which parameters decay, and the learning rate at every step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.training import load_recipe
from nas.training.optimisation import learning_rate, make_optimizer


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_only_weights_of_convolutions_decay(kind: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.ConvTranspose2d(4, 2, 2))
    recipe = replace(load_recipe("quick"), optimizer=kind, weight_decay=0.5, learning_rate=0.1)
    optimizer = make_optimizer(network, recipe)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"0.weight", "3.weight"}
    assert type(optimizer).__name__.lower() == kind


def rates(steps: int, **changes) -> list[float]:
    recipe = replace(load_recipe("quick"), learning_rate=1.0, warmup_steps=0, **changes)
    return [learning_rate(recipe, step, steps) for step in range(steps)]


def test_poly() -> None:
    assert rates(10, schedule="poly", power=0.9) == pytest.approx([(1 - k / 10) ** 0.9 for k in range(10)])


def test_cosine_ends_near_its_final_rate() -> None:
    found = rates(1000, schedule="cosine", final_learning_rate=0.1)
    assert found[0] == 1.0
    assert found[500] == pytest.approx(0.55)
    assert found[-1] == pytest.approx(0.1, abs=1e-4)
    assert found == sorted(found, reverse=True)


def test_steps_hold_each_factor_from_its_milestone() -> None:
    found = rates(10, schedule="steps", milestones=(0.3, 0.8), factors=(0.1, 0.01))
    assert found == pytest.approx([1.0] * 3 + [0.1] * 5 + [0.01] * 2)


def test_warm_up_rises_to_the_full_rate_and_leaves_most_of_a_short_training() -> None:
    recipe = replace(load_recipe("quick"), learning_rate=1.0, warmup_steps=500, warmup_start=0.25, power=1.0)
    found = [learning_rate(recipe, step, 40) for step in range(40)]
    assert found[:10] == sorted(found[:10])
    assert 0.25 < found[0] < found[9] < 1.0
    assert found[10] == 1.0
    assert found[25] == pytest.approx(0.5)
