"""Recipes are strict data, and the published ones have the values of the papers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from nas.training import Recipe, load_recipe, published_recipes, recipe_of_network
from nas.training.recipe import Boundary
from space import published, strict
from space.errors import UserError


def test_the_recipes_of_the_papers_and_a_quick_one_are_published() -> None:
    papers = {"dabnet", "ddrnet", "erfnet", "fast-scnn", "fplnet", "ndnet", "rdrnet", "regseg", "stdc", "swiftnet"}
    assert set(published_recipes()) == papers | {"swiftnet-rn18-pyramid", "quick"}


@pytest.mark.parametrize("name", published())
def test_every_published_network_has_a_recipe_of_its_own(name: str) -> None:
    recipe = recipe_of_network(name)
    assert recipe.epochs > 100  # trainings of the papers are long
    family = name if name in ("fast-scnn", "swiftnet-rn18-pyramid") else name.split("-")[0].rstrip("0123456789w")
    assert recipe == load_recipe(family)


def test_an_unpublished_network_has_no_recipe_of_its_own() -> None:
    with pytest.raises(UserError, match=r"expected a published network.*'ernet'; did you mean 'erfnet'"):
        recipe_of_network("ernet")


@pytest.mark.parametrize("name", published_recipes())
def test_a_published_recipe_survives_a_round_trip_through_yaml(name: str) -> None:
    recipe = load_recipe(name)
    assert strict.parse(strict.dump(recipe), Recipe, "round trip") == recipe


def test_published_recipes_have_the_values_of_their_papers() -> None:
    fplnet, ndnet, erfnet, swiftnet = map(load_recipe, ("fplnet", "ndnet", "erfnet", "swiftnet"))
    assert (fplnet.optimizer, fplnet.learning_rate, fplnet.weight_decay) == ("sgd", 0.045, 0.0005)
    assert (fplnet.schedule, fplnet.power, fplnet.class_weighting) == ("poly", 0.9, 1.02)
    assert (ndnet.learning_rate, ndnet.batch_size, ndnet.factors) == (0.1, 11, (0.1, 0.01, 0.005))
    assert (erfnet.optimizer, erfnet.learning_rate, erfnet.class_weighting) == ("adam", 0.0005, 1.1)
    assert (swiftnet.second_momentum, swiftnet.final_learning_rate, swiftnet.class_weighting) == (
        0.99,
        1e-6,
        None,
    )
    assert (erfnet.encoder.epochs_of(erfnet.epochs), fplnet.encoder.epochs_of(fplnet.epochs)) == (150, 500)
    assert (erfnet.encoder.class_weighting, erfnet.encoder.labels, erfnet.encoder.batch_size) == (1.2, "coarse", 6)
    assert (fplnet.encoder.class_weighting, fplnet.encoder.labels, fplnet.encoder.batch_size) == (1.02, "full", 12)
    assert (swiftnet.learning_rate, swiftnet.pretrained_share, swiftnet.encoder) == (0.0004, 0.25, None)
    ddrnet, rdrnet, regseg, stdc, dabnet = map(load_recipe, ("ddrnet", "rdrnet", "regseg", "stdc", "dabnet"))
    for recipe in (ddrnet, rdrnet):
        assert (recipe.learning_rate, recipe.weight_decay, recipe.batch_size) == (0.01, 0.0005, 12)
        assert round(recipe.ohem_share * 6 * 1024 * 1024) == pytest.approx(131_072, rel=1e-4)
        assert recipe.ohem_probability == 0.9
    assert (regseg.learning_rate, regseg.epochs, regseg.ohem_probability) == (0.05, 1000, None)
    assert (stdc.batch_size, stdc.ohem_probability, stdc.ohem_share) == (48, 0.7, 1 / 16)
    assert (dabnet.learning_rate, dabnet.batch_size, dabnet.ohem_probability) == (0.045, 8, 0.7)
    assert dabnet.scale == (0.75, 1, 1.25, 1.5, 1.75, 2)
    assert ndnet.scale == (0.75, 1, 1.5, 1.75, 2)
    assert (len(ddrnet.scale), ddrnet.scale[0], ddrnet.scale[-1]) == (17, 0.5, 2.1)
    assert (stdc.scale, stdc.fills_crop) == (tuple(eighths / 8 for eighths in range(1, 13)), True)
    pyramid = load_recipe("swiftnet-rn18-pyramid")
    assert pyramid.boundary == Boundary(distances=(16, 64, 128), weights=(8, 4, 2, 1), focus=0.5)
    assert replace(pyramid, boundary=None) == swiftnet
    everything = (dabnet, ddrnet, erfnet, load_recipe("fast-scnn"), rdrnet, swiftnet, pyramid)
    assert {recipe.weight_decay_of for recipe in everything} == {"all"}
    assert {recipe.weight_decay_of for recipe in (ndnet, stdc)} == {"weights"}
    assert (regseg.weight_decay_of, regseg.class_uniform) == ("convolutions", 0.5)
    assert (rdrnet.scale_sampling, rdrnet.crop_class_share) == ("uniform", 0.75)
    assert (rdrnet.saturation, rdrnet.hue_degrees, stdc.saturation) == (0.5, 36, 0.5)
    assert [round(1024 * scale) for scale in regseg.scale] == [400, 1600]


def test_a_recipe_is_read_from_a_file(tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optimizer: sgd\nlearning_rate: 1e-2\nepochs: 3\nbatch_size: 2\ncrop: [32, 64]\n")
    recipe = load_recipe(path)
    assert recipe == Recipe(optimizer="sgd", learning_rate=0.01, epochs=3, batch_size=2, crop=(32, 64))


def test_an_unknown_recipe_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"'quik'; did you mean 'quick'"):
        load_recipe("quik")


def test_a_missing_or_unreadable_file_is_named(tmp_path) -> None:
    with pytest.raises(UserError, match=r"nowhere.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match=r"binary.yaml"):
        load_recipe(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate: expected more than 0"),
        ({"epochs": 0}, "epochs: expected more than 0"),
        ({"batch_size": -1}, "batch_size: expected more than 0"),
        ({"weight_decay": -0.1}, "weight_decay: expected 0 or more"),
        ({"momentum": 1.0}, "momentum: expected a number"),
        ({"class_weighting": 1.0}, "class_weighting: expected c above 1"),
        ({"scale": (2.0, 1.0)}, "scale: expected two scale factors, ascending"),
        ({"scale": (1.0, 1.5, 2.0)}, "scale: expected two scale factors, ascending"),
        ({"scale": (1.0, 0.0), "scale_sampling": "listed"}, "scale: expected scale factors between"),
        ({"scale": (0.05, 1.0)}, "scale: expected two scale factors, ascending, between 0.1 and 10"),
        ({"hue_degrees": -1.0}, "hue_degrees: expected 0 to 180"),
        ({"boundary": {"distances": [], "weights": [1.0]}}, "boundary.distances: expected ascending"),
        ({"boundary": {"distances": [4.0], "weights": [1.0]}}, "boundary.weights: expected one more"),
        ({"boundary": {"distances": [4.0], "weights": [2.0, 1.0], "focus": -1.0}}, "boundary.focus: expected 0"),
        ({"warmup_growth": "exponential", "warmup_start": 0.0}, "warmup_start: expected a share above 0"),
        ({"rate_shares": {"heads": 10.0}}, r"rate_shares: expected parts of a network .*'heads'; did you mean 'head'"),
        ({"rate_shares": {"head": 0.0}}, "rate_shares.head: expected more than 0"),
        ({"crop_class_share": 0.0}, "crop_class_share: expected a share above 0"),
        ({"class_uniform": 1.1}, "class_uniform: expected a share in 0..1, got 1.1"),
        ({"crop": (4, 4)}, "crop: expected height and width of at least 8 pixels"),
        ({"shift_pixels": -1}, "shift_pixels: expected 0 or more"),
        ({"brightness": 1.0}, "brightness: expected a number"),
        ({"pretrained_share": 0.0}, "pretrained_share: expected more than 0"),
        ({"gradient_clip": 0.0}, "gradient_clip: expected a norm above 0"),
        ({"score_every": 0}, "score_every: expected a number of epochs above 0 or null, got 0"),
        ({"warmup_start": 1.5}, "warmup_start: expected a share"),
        ({"milestones": (0.5,)}, "belong to schedule 'steps'"),
        ({"schedule": "steps"}, "as many factors as milestones"),
        (
            {"schedule": "steps", "milestones": (0.5, 0.2), "factors": (0.1, 0.1)},
            "milestones: expected ascending",
        ),
        ({"schedule": "steps", "milestones": (0.5,), "factors": (-1.0,)}, "factors: expected multiples"),
    ],
)
def test_an_impossible_value_is_refused(change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        strict.parse(strict.dump(strict.plain(load_recipe("quick")) | change), Recipe, "a recipe")


def test_importing_recipes_does_not_import_torch() -> None:
    code = "import sys, nas.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
