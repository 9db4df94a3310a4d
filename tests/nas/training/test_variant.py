"""Variants: the values in which a finish differs from the study's recipe."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import space
from nas.training import Recipe, Variant
from nas.training.loss import total_loss
from space import UserError, strict
from space.scale import scale_width

RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, epochs=8, batch_size=2, ohem_probability=0.7, ema_decay=0.9)


def test_values_that_a_variant_does_not_name_stay() -> None:
    assert Variant().of(RECIPE) == RECIPE
    assert Variant(distillation=True, deep_supervision=True).of(RECIPE) == RECIPE
    changed = Variant(learning_rate=0.003, epochs=3, ohem_probability=1.0, ema_decay=0.0).of(RECIPE)
    assert (changed.learning_rate, changed.epochs, changed.ohem_probability, changed.ema_decay) == (0.003, 3, 1.0, 0.0)
    assert changed.batch_size == 2
    assert Variant(class_uniform=0.5).of(RECIPE).class_uniform == 0.5
    assert Variant(class_uniform=0.0).of(Variant(class_uniform=0.5).of(RECIPE)) == RECIPE


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate: 0", "learning_rate: expected more than 0, got 0.0"),
        ("epochs: 0", "epochs: expected 1 or more, got 0"),
        ("ohem_probability: 1.1", "ohem_probability: expected a probability above 0, at most 1, got 1.1"),
        ("ema_decay: 1", "ema_decay: expected a number in 0..1"),
        ("class_uniform: 1.5", "class_uniform: expected a share in 0..1, got 1.5"),
        ("deep_supervision: [0.4, -1]", "deep_supervision: expected true, or weights of heads in 0..10"),
        (
            "deep_supervision: [0, 0]",
            "one of the first 2 above 0 (some networks have no more places); got [0.0, 0.0]",
        ),
        ("deep_supervision: [0, 0, 0, 0, 0, 0, 0.1]", "one of the first 2 above 0"),
        ("deep_supervision: 0.4", "deep_supervision: expected true or false, or a list of numbers, got '0.4'"),
        ("deep_supervision: {last: 0.4}", "expected true or false, or a list of numbers, got a mapping"),
        ("learning_rat: 1", "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ("optimizer: sgd", "unknown key 'optimizer'"),
    ],
)
def test_impossible_variants_are_refused(text: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        strict.parse(text, Variant, "v.yaml")
    assert words in str(refused.value)


def test_a_variant_is_described_in_words() -> None:
    assert str(Variant()) == "the study's recipe"
    assert str(Variant(ohem_probability=0.7, distillation=True)) == "ohem_probability 0.7, distillation"
    assert str(Variant(class_uniform=0.5, deep_supervision=(0.4, 1.0))) == "class_uniform 0.5, deep_supervision 0.4 1"


@pytest.mark.parametrize("name", ["erfnet", "ndnet45-fcn32", "fplnet", "fplnet-encoder", "swiftnet-rn18", "rdrnet-s"])
def test_deep_supervision_adds_a_head_for_the_training_alone(name: str) -> None:
    architecture = scale_width(space.load(name), 0.2)
    trained = Variant(deep_supervision=True).trains(architecture)
    assert Variant().trains(architecture) == architecture
    if architecture.auxiliary:
        assert trained == architecture, "it has its own"
    assert len(trained.auxiliary) >= 1
    assert trained.build(5).state_dict().keys() == architecture.build(5).state_dict().keys()
    assert len(trained.build(5, auxiliary=True).auxiliary_weights) == len(trained.auxiliary)


@pytest.mark.parametrize(
    ("name", "places"),
    [("erfnet", [1, 0, -1]), ("swiftnet-rn18", [3, 2, 1, 0, -1]), ("fplnet-encoder", [0, -1])],
)
def test_weights_of_deep_supervision_count_from_the_last_stage_to_the_stem(
    name: str, places: list[int], shallow
) -> None:
    """If the last stage gives the logits of a network, the first extra head is on the stage before it."""
    architecture = replace(scale_width(shallow(name), 0.2), auxiliary=())
    assert places == list(range(len(architecture.stages) - (1 if architecture.decoder else 2), -2, -1))

    def heads(*weights: float) -> list[tuple[int, float]]:
        return [(h.stage, h.weight) for h in Variant(deep_supervision=weights).trains(architecture).auxiliary]

    assert heads(0.4, 1.0) == [(places[0], 0.4), (places[1], 1.0)]
    assert heads(0.0, 0.3) == [(places[1], 0.3)]
    assert heads(*[0.1] * 9) == [(place, 0.1) for place in places]
    once = Variant(deep_supervision=True).trains(architecture)
    assert once == Variant(deep_supervision=(0.4,)).trains(architecture)


def test_each_head_trains_only_the_layers_below_it(shallow) -> None:
    """From the auxiliary losses alone, a head's own layers and the stages below it get gradients, by its weight."""
    architecture = replace(scale_width(shallow("erfnet"), 0.2), auxiliary=())
    trained = Variant(deep_supervision=(0.0, 0.5)).trains(architecture)
    network = trained.build(5, auxiliary=True).eval()
    labels = torch.randint(5, (1, 32, 48), generator=torch.Generator().manual_seed(0))

    def gradients(weight: float) -> dict[str, torch.Tensor]:
        network.zero_grad(set_to_none=True)
        main, head = network.outputs(torch.ones(1, 3, 32, 48))
        total_loss([0 * main, head], (weight,), labels).backward()
        return {name: each.grad.clone() for name, each in network.named_parameters() if each.grad is not None}

    half, whole = gradients(0.5), gradients(1.0)
    reached = {name.split(".")[0] for name, gradient in half.items() if gradient.abs().sum() > 0}
    assert reached == {"stem", "stage0", "auxiliary0"}
    assert all(torch.allclose(2 * half[name], whole[name]) for name in half)
    inference = trained.build(5)
    assert not any(name.startswith("auxiliary") for name in inference.state_dict())
    assert space.parameters(trained, 5) == space.parameters(architecture, 5)


def test_a_network_with_a_single_stage_has_the_extra_head_on_its_stem() -> None:
    one = space.Architecture.from_yaml(
        """
        stem: {kind: convs, width: 4}
        stages: [{block: plain, width: 8, depth: 1, stride: 2}]
        context: null
        decoder: null
        head: {kind: linear}
        activation: relu
        levels: 1
        norm_epsilon: 0.001
        bias: false
        align_corners: false
        """
    )
    assert [each.stage for each in Variant(deep_supervision=True).trains(one).auxiliary] == [-1]
