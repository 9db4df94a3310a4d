"""Groups of parameters, weight decay, optimisers, and the learning rate at every step."""

from __future__ import annotations

import copy
import itertools
import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from nas.training import load_recipe
from nas.training.optimisation import (
    learning_rate,
    make_optimizer,
    missing_parts,
    parameter_groups,
    restore_optimizer,
)
from nas.training.recipe import recipe_of_network
from space import Architecture, Space, load, published
from space.scopes import PARTS, part_of


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
def test_a_fused_update_equals_an_update_of_one_parameter_after_another(kind: str) -> None:
    """It is compared with torch's plain loop, over steps with different gradients and rates."""
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
def test_a_training_with_loss_scaling_resumes_with_the_kind_of_optimiser_it_was_saved_with(
    kind: str, fused: bool | None
) -> None:
    """This includes checkpoints of versions without fused optimisers."""
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


def test_pretrained_layers_have_a_share_of_the_rate_and_of_the_decay() -> None:
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


def test_parts_of_a_network_have_rates_of_their_own() -> None:
    network = load("stdc1").build(3, auxiliary=True)
    recipe = replace(
        load_recipe("stdc"), rate_shares={"stage": 2.0, "stage1": 3.0, "decoder.step1": 10.0, "head": 10.0}
    )
    names = {parameter: name for name, parameter in network.named_parameters()}
    model = nn.ModuleDict({"network": network, "classifier": nn.Conv2d(4, 3, 1)})  # as in the stage of the encoder
    for trained, others in ((network, 0), (model, 2)):
        groups = parameter_groups(trained, recipe)
        found = {names[each]: group.rate_share for group in groups for each in group.parameters if each in names}
        assert sum(len(group.parameters) for group in groups) == len(names) + others
        for name, share in found.items():
            first, second, *_ = name.split(".")
            ten = first == "head" or (first, second) == ("decoder", "step1")
            expected = {"stage0": 2.0, "stage1": 3.0, "stage2": 2.0}.get(first, 10.0 if ten else 1.0)
            assert share == expected, name
        assert {group.weight_decay for group in groups if group.parameters[0].ndim > 1} == {0.0005}
    assert learning_rate(recipe, 3000, 60_000, share=10.0) == pytest.approx(10 * learning_rate(recipe, 3000, 60_000))
    lacking = replace(recipe, rate_shares={"decoder": 2.0, "decoder.step9": 2.0, "stage1": 3.0, "context": 2.0})
    assert missing_parts(network, lacking) == ("decoder.step9", "context")


@pytest.mark.parametrize("name", published())
def test_rates_of_a_published_recipe_are_of_parts_that_its_network_has(name: str) -> None:
    with torch.device("meta"):
        network = load(name).build(3, auxiliary=True)
    assert missing_parts(network, recipe_of_network(name)) == ()


def with_branches() -> list[Architecture]:
    """Networks of two branches, whose trunk meets the other in a pyramid of windows or in one convolution."""
    space = Space(ranges={"decoder": ("none",), "detail": ("both", "up"), "stages": (4,), "head": ("linear",)})
    return [space.sample(random.Random(seed)) for seed in range(8)]


def test_every_layer_is_in_a_part_with_a_name() -> None:
    graphs = [each.graph(3, auxiliary=True) for each in (*map(load, published()), *with_branches())]
    layers = {node.name for graph in graphs for node in graph.nodes if node.name}
    assert {part_of(layer) for layer in layers} == set(PARTS)


@pytest.mark.parametrize("name", ["conv1", "backbone.conv1", "stages.0", "stage1x.block0", "headless", ""])
def test_names_of_other_projects_are_in_no_part(name: str) -> None:
    assert part_of(name) is None


def test_the_rate_of_a_part_is_that_of_its_normalisations_too() -> None:
    recipe = replace(load_recipe("quick"), rate_shares=dict.fromkeys(PARTS, 2.0))
    for architecture in with_branches():
        groups = parameter_groups(architecture.build(3), recipe)
        assert {group.rate_share for group in groups if group.parameters} == {2.0}
    network = load("swiftnet-rn18").build(3)
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = parameter_groups(network, replace(recipe, rate_shares={"decoder.lateral": 2.0}))
    faster = {names[each] for group in groups if group.rate_share == 2.0 for each in group.parameters}
    assert faster == {name for name in names.values() if name.startswith("decoder.lateral")}
    assert {name.partition("_")[2] for name in faster} == {"", "norm.weight", "norm.bias"}


def test_groups_without_rates_of_parts_are_those_of_earlier_checkpoints() -> None:
    network = load("erfnet").build(3)
    groups = parameter_groups(network, load_recipe("quick"))
    weights, others = ([each for each in network.parameters() if (each.ndim > 1) == more] for more in (True, False))
    assert [[id(each) for each in group.parameters] for group in groups] == [[*map(id, weights)], [*map(id, others)]]


@pytest.mark.parametrize(
    ("kind", "moved"),
    [
        ("weights", {"0.weight", "3.weight"}),
        ("convolutions", {"0.weight", "0.bias", "3.weight", "3.bias"}),
        ("all", {"0.weight", "0.bias", "1.weight", "1.bias", "2.weight", "3.weight", "3.bias"}),
    ],
)
def test_weight_decay_applies_to_the_parameters_that_the_recipe_names(kind: str, moved: set[str]) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.PReLU(4), nn.ConvTranspose2d(4, 2, 2))
    groups = parameter_groups(network, replace(load_recipe("quick"), weight_decay_of=kind))
    decaying = {id(each) for group in groups if group.weight_decay for each in group.parameters}
    assert {name for name, each in network.named_parameters() if id(each) in decaying} == moved


def rates(steps: int, **changes) -> list[float]:
    recipe = replace(load_recipe("quick"), learning_rate=1.0, warmup_steps=0, **changes)
    return [learning_rate(recipe, step, steps) for step in range(steps)]


def test_a_poly_schedule_falls_from_the_full_rate_to_zero() -> None:
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


def test_an_exponential_warm_up_grows_by_one_factor() -> None:
    recipe = load_recipe("stdc")
    found = [learning_rate(recipe, step, 60_000) for step in range(1001)]
    factors = {round(later / sooner, 9) for sooner, later in itertools.pairwise(found)}
    assert len(factors) == 1
    assert found[0] == pytest.approx(1e-5, rel=0.01), "the authors'"
    assert found[1000] == recipe.learning_rate
