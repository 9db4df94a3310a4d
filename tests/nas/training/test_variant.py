"""What a finish does otherwise than the study's recipe."""

from __future__ import annotations

import pytest

import space
from nas.training import Recipe, Variant
from space import UserError, strict
from space.scale import scale_width

RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, epochs=8, batch_size=2, ohem_probability=0.7, ema_decay=0.9)


def test_what_is_not_named_stays() -> None:
    assert Variant().of(RECIPE) == RECIPE
    assert Variant(distillation=True, deep_supervision=True).of(RECIPE) == RECIPE
    changed = Variant(learning_rate=0.003, epochs=3, ohem_probability=1.0, ema_decay=0.0).of(RECIPE)
    assert (changed.learning_rate, changed.epochs, changed.ohem_probability, changed.ema_decay) == (0.003, 3, 1.0, 0.0)
    assert changed.batch_size == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("learning_rate: 0", "learning_rate: expected more than 0, got 0.0"),
        ("epochs: 0", "epochs: expected 1 or more, got 0"),
        ("ohem_probability: 1.1", "ohem_probability: expected a probability above 0, at most 1, got 1.1"),
        ("ema_decay: 1", "ema_decay: expected a number in 0..1"),
        ("learning_rat: 1", "unknown key 'learning_rat'; did you mean 'learning_rate'"),
        ("optimizer: sgd", "unknown key 'optimizer'"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(UserError) as refused:
        strict.parse(text, Variant, "v.yaml")
    assert words in str(refused.value)


def test_it_is_told_in_words() -> None:
    assert str(Variant()) == "the study's recipe"
    assert str(Variant(ohem_probability=0.7, distillation=True)) == "ohem_probability 0.7, distillation"


@pytest.mark.parametrize("name", ["erfnet", "ndnet45-fcn32", "fplnet", "fplnet-encoder", "swiftnet-rn18", "rdrnet-s"])
def test_deep_supervision_adds_a_head_that_is_left_behind(name: str) -> None:
    architecture = scale_width(space.load(name), 0.2)
    trained = Variant(deep_supervision=True).trains(architecture)
    assert Variant().trains(architecture) == architecture
    if architecture.auxiliary:
        assert trained == architecture, "it has its own"
    assert len(trained.auxiliary) >= 1
    assert trained.build(5).state_dict().keys() == architecture.build(5).state_dict().keys()
    assert len(trained.build(5, auxiliary=True).auxiliary_weights) == len(trained.auxiliary)


def test_a_single_stage_has_it_on_its_stem() -> None:
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
