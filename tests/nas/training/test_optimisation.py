"""Which parameters decay, and the learning rate at every step."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.training import load_recipe
from nas.training.optimisation import learning_rate, make_optimizer, parameter_groups, restore_optimizer


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_only_weights_of_convolutions_decay(kind: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.ConvTranspose2d(4, 2, 2))
    recipe = replace(load_recipe("quick"), optimizer=kind, weight_decay=0.5, learning_rate=0.1)
    optimizer = make_optimizer(parameter_groups(network, recipe), recipe)
    before = {name: parameter.clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    moved = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {"0.weight", "3.weight"}
    assert type(optimizer).__name__.lower() == kind


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_one_kernel_updates_as_one_parameter_after_the_other_does(kind: str) -> None:
    """Against torch's plain loop, over steps with other gradients and rates."""
    torch.manual_seed(0)
    recipe = replace(load_recipe("quick"), optimizer=kind, weight_decay=0.01)
    networks = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 5, 1)) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    fused, plain = (make_optimizer(parameter_groups(each, recipe), recipe) for each in networks)
    for group in plain.param_groups:
        group["fused"], group["foreach"] = None, False
    for step in range(4):
        for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in (fused, plain):
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / (step + 1)
            optimizer.step()
    for one, other in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("fused", [True, None])
def test_a_training_with_loss_scaling_goes_on_in_the_form_that_it_was_saved_in(kind: str, fused: bool | None) -> None:
    """Also in the one from before optimisers were fused."""
    torch.manual_seed(0)
    recipe = replace(load_recipe("quick"), optimizer=kind)
    network = nn.Conv2d(3, 4, 3)
    optimizer, saved = (make_optimizer(parameter_groups(network, recipe), recipe) for _ in range(2))
    state = saved.state_dict()
    for group in state["param_groups"]:
        group["fused"] = fused
    restore_optimizer(optimizer, state)
    scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
    twin = copy.deepcopy(network)
    plain = make_optimizer(parameter_groups(twin, recipe), recipe)
    image = torch.randn(1, 3, 8, 8)
    scaler.scale(network(image).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()
    twin(image).square().mean().backward()
    plain.step()
    for one, other in zip(network.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert [group["fused"] for group in optimizer.param_groups] == [fused] * 2


def test_layers_that_others_trained_have_a_share_of_the_rate_and_of_the_decay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1))
    recipe = replace(load_recipe("swiftnet"), weight_decay=0.4)
    first, second = (list(layer.parameters()) for layer in network)
    groups = parameter_groups(network, recipe, first)
    assert [(group.rate_share, group.weight_decay) for group in groups] == [(1, 0.4), (1, 0), (0.25, 0.1), (0.25, 0)]
    assert [id(each) for group in groups for each in group.parameters] == [*map(id, second), *map(id, first)]
    assert len(parameter_groups(network, recipe)) == len(parameter_groups(network, load_recipe("quick"), first)) == 2
    found = [learning_rate(recipe, step, 1000, share=0.25) for step in range(1000)]
    assert found[0] == pytest.approx(1e-4), "the authors'"
    assert found[-1] == pytest.approx(1e-6, rel=0.01), "where all end"


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
