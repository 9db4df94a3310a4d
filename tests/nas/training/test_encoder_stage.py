"""Two stages of a training: first the encoder under a temporary classifier, then the whole network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data.share import Share
from nas.errors import DamagedError
from nas.training import Recipe
from nas.training.encoder_stage import EncoderModel
from nas.training.loss import labels_at
from nas.training.recipe import EncoderStage
from nas.training.trainer import Trainer
from space import load
from space.count import memory
from space.errors import ArchitectureError, UserError
from space.scale import scale_width

STAGE = EncoderStage(share=0.5, batch_size=8, class_weighting=1.2, labels="coarse", bias=True)
RECIPE = Recipe(
    optimizer="adamw", learning_rate=0.01, epochs=4, batch_size=4, class_weighting=1.1, ema_decay=0.9, encoder=STAGE
)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def whole(architecture, dataset):
    """Weights at the start and after each epoch, the reports, and the last learning rate of each epoch."""
    trainer = Trainer(architecture, dataset, RECIPE, threads=1)
    weights, rates = [trainer.weights()], []
    while not trainer.finished:
        trainer.run_epoch()
        weights.append(trainer.weights())
        rates.append(trainer.learning_rate)
    return weights, trainer.history, rates


def test_the_encoder_is_trained_first_and_the_whole_network_afterwards(whole) -> None:
    weights, history, rates = whole

    def changed(epoch: int, part: str) -> bool:
        before, after = weights[epoch - 1], weights[epoch]
        return not all(torch.equal(before[name], after[name]) for name in before if name.startswith(part))

    assert [changed(epoch, "stage") for epoch in (1, 2, 3, 4)] == [True] * 4
    assert [changed(epoch, "decoder") for epoch in (1, 2, 3, 4)] == [False, False, True, True]
    assert [report.encoder for report in history] == [True, True, False, False]
    assert [(report.epoch, report.epochs) for report in history] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert rates[0] > rates[1] < rates[2] > rates[3], "each stage has a schedule of its own"


@pytest.mark.share(2)
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_training_stopped_within_or_between_stages_ends_with_the_same_bits(
    epochs, whole, architecture, dataset, tmp_path
) -> None:
    first = Trainer(architecture, dataset, RECIPE, threads=1)
    for _ in range(epochs):
        first.run_epoch()
    first.save(tmp_path / "checkpoint.pt")
    second = Trainer(architecture, dataset, RECIPE, threads=1)
    second.restore(tmp_path / "checkpoint.pt")
    while not second.finished:
        second.run_epoch()
    assert same(second.weights(), whole[0][-1])
    assert [report.encoder for report in second.history] == [True, True, False, False]


def test_each_rung_but_the_first_trains_the_whole_network(architecture, dataset) -> None:
    recipe = replace(RECIPE, epochs=8)
    trainer = Trainer(architecture, dataset, recipe, threads=1, rungs=(2, 4))
    while not trainer.finished:
        trainer.run_epoch()
    assert [report.encoder for report in trainer.history] == [True, False, False, False]
    weights = trainer.weights()
    assert Trainer(architecture, dataset, recipe, threads=1, weights=weights).encoder_epochs == 0
    flat = load("ndnet45-fcn32")
    assert Trainer(flat, dataset, recipe, threads=1).encoder_epochs == 0, "it has no decoder"


def test_encoder_batches_too_small_for_all_processes_do_not_damage_a_checkpoint(whole, architecture, dataset, tmp_path):
    """With a damaged checkpoint a training would begin anew. An earlier version began with a stage left out now."""
    weights, recipe = whole[0][-1], replace(RECIPE, encoder=replace(STAGE, batch_size=2))
    encoder = {name: each for name, each in weights.items() if name.startswith(("stem", "stage"))}
    with pytest.raises(UserError, match="got 3 processes and 2 images at a time; give 2 at most"):
        Trainer(architecture, dataset, recipe, threads=1, init=encoder, share=Share(count=3))
    first = Trainer(architecture, dataset, recipe, threads=1)
    first.run_epoch()
    first.save(tmp_path / "checkpoint.pt")
    again = Trainer(architecture, dataset, recipe, threads=1, init=weights, share=Share(count=3))
    assert again.encoder_epochs == 0
    with pytest.raises(UserError, match="got 3 processes and 2 images at a time") as told:
        again.restore(tmp_path / "checkpoint.pt")
    assert not isinstance(told.value, DamagedError)


def test_a_training_that_starts_from_a_whole_network_has_no_encoder_stage(
    whole, architecture, dataset, tmp_path
) -> None:
    weights = whole[0][-1]
    encoder = {name: each for name, each in weights.items() if name.startswith(("stem", "stage"))}
    assert Trainer(architecture, dataset, RECIPE, threads=1, init=encoder).encoder_epochs == 2
    trainer = Trainer(architecture, dataset, RECIPE, threads=1, init=weights)
    assert trainer.encoder_epochs == 0
    first = Trainer(architecture, dataset, RECIPE, threads=1)
    first.run_epoch()
    first.save(tmp_path / "checkpoint.pt")
    trainer.restore(tmp_path / "checkpoint.pt")  # a training begun by an earlier version
    while not trainer.finished:
        trainer.run_epoch()
    assert same(trainer.weights(), weights)


@pytest.mark.parametrize("name", ["erfnet", "fplnet"])
def test_the_network_trained_first_is_the_published_encoder(name, shallow) -> None:
    """It is compared with the published encoder of the same weights under a linear head; stages have one block each."""
    parent = scale_width(shallow(name), 0.25)
    network = parent.build(5).eval()
    model = EncoderModel(network, replace(STAGE, labels="full", bias=parent.bias)).eval()
    encoder = scale_width(shallow(f"{name}-encoder"), 0.25).build(5).eval()
    state = {key: value for key, value in network.state_dict().items() if key in encoder.state_dict()}
    state |= {f"head.logits.{key}": value for key, value in model.classifier.state_dict().items()}
    encoder.load_state_dict(state)
    image = torch.randn(2, 3, 40, 56)
    with torch.no_grad():
        torch.testing.assert_close(model(image), encoder(image))
        coarse = EncoderModel(network, STAGE)(image)
    assert coarse.shape == (2, 5, 5, 7)


@pytest.mark.parametrize("name", ["swiftnet-rn18", "swiftnet-rn18-pyramid", "ndnet45-ende", "rdrnet-s"])
def test_every_encoder_has_an_output(name) -> None:
    network = scale_width(load(name), 0.25).build(3).eval()
    with torch.no_grad():
        features = network.encoded(torch.randn(1, 3, 128, 128))
    assert features.shape[1] == network.encoder_width
    assert features.shape[-1] < 128


def test_coarse_labels_are_the_nearest_ones_as_in_pillow() -> None:
    labels = np.random.default_rng(0).integers(0, 12, (24, 41)).astype(np.uint8)
    labels[3:9] = 255
    nearest = Image.fromarray(labels).resize((6, 3), Image.Resampling.NEAREST)
    found = labels_at(torch.from_numpy(labels).long()[None], (3, 6))
    assert found.dtype == torch.int64
    assert found[0].tolist() == np.asarray(nearest).tolist()


def test_the_larger_batches_of_the_encoder_stage_count_for_memory(architecture, dataset) -> None:
    recipe = replace(RECIPE, encoder=replace(STAGE, batch_size=100_000_000))
    with pytest.raises(ArchitectureError, match="in batches of 100000000 in the stage of its encoder, which needs"):
        Trainer(architecture, dataset, recipe, threads=1)
    weights = architecture.build(dataset.num_classes).state_dict()
    for start in ("weights", "init"):
        Trainer(architecture, dataset, recipe, threads=1, **{start: weights})  # without an encoder stage


@pytest.mark.parametrize("name", ["erfnet", "fplnet"])
def test_memory_of_the_encoder_stage_is_that_of_the_encoder_alone(name) -> None:
    """It is compared with the published encoder, which has a linear head, and logits that are interpolated."""
    counted, whole = (memory(load(name), (64, 96), 5, encoder=encoder) for encoder in (True, False))
    published = memory(load(f"{name}-encoder"), (64, 96), 5)
    assert 0.9 * published.trained_parameters < counted.trained_parameters < published.trained_parameters
    assert 0.9 * published.outputs < counted.outputs < published.outputs < whole.outputs
    assert counted.alive <= published.alive


def test_a_short_training_has_an_epoch_of_the_whole_network() -> None:
    assert [STAGE.epochs_of(epochs) for epochs in (1, 2, 3, 300)] == [0, 1, 2, 150]
    assert replace(STAGE, share=0.333333).epochs_of(1500) == 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 1.0}, "share of the epochs above 0 and below 1, got 1.0"),
        ({"batch_size": 0}, "batch_size: expected more than 0"),
        ({"class_weighting": 0.9}, "class_weighting: expected c above 1"),
    ],
)
def test_an_impossible_encoder_stage_is_refused(change, message) -> None:
    with pytest.raises(UserError, match=message):
        replace(STAGE, **change)
