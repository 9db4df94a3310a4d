"""Which epochs of a training are scored, and that the scores and weights at the end do not depend on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.data import Dataset
from nas.training import Recipe
from nas.training.recipe import EncoderStage
from nas.training.schedules import Schedules
from nas.training.trainer import Trainer
from space import Architecture

RECIPE = Recipe(
    optimizer="adamw", learning_rate=0.01, epochs=6, batch_size=4, crop=(24, 32), scale=(0.8, 1.2), batch_norm_batches=2
)
STAGE = EncoderStage(share=0.5, batch_size=8, class_weighting=None, labels="coarse", bias=True)


def trained(trainer: Trainer, epochs: int = 100) -> Trainer:
    """Train for so many epochs, or to the end."""
    while not trainer.finished and epochs:
        trainer.run_epoch()
        epochs -= 1
    return trainer


def scored(trainer: Trainer) -> list[int]:
    return [each.epoch for each in trainer.history if each.scores is not None]


@pytest.mark.parametrize(
    ("ends", "every", "epochs"),
    [
        ([6], None, [1, 2, 3, 4, 5, 6]),
        ([6], 1, [1, 2, 3, 4, 5, 6]),
        ([6], 4, [4, 6]),
        ([6], 100, [6]),
        ([3, 8], 2, [2, 3, 5, 7, 8]),
        ([0, 2, 7], 7, [2, 7]),
    ],
)
def test_the_end_of_every_schedule_is_scored_and_epochs_are_counted_from_there(
    ends: list[int], every: int | None, epochs: list[int]
) -> None:
    schedules = Schedules(ends=ends, score_every=every)
    assert [epoch for epoch in range(1, ends[-1] + 1) if schedules.scores_after(epoch)] == epochs


@pytest.mark.parametrize(
    ("change", "first"),
    [({}, [2]), ({"ema_decay": 0.9}, [2]), ({"encoder": STAGE, "ema_decay": 0.9, "batch_norm_batches": 0}, [1, 2])],
    ids=["last weights", "averaged weights", "encoder first"],
)
def test_scores_and_weights_at_the_ends_of_schedules_are_the_same_however_often_it_scores(
    architecture: Architecture, dataset: Dataset, change: dict[str, object], first: list[int]
) -> None:
    recipe = replace(RECIPE, **change)  # type: ignore[arg-type]
    often = trained(Trainer(architecture, dataset, recipe, threads=1, rungs=(2, 6)))
    assert scored(often) == [1, 2, 3, 4, 5, 6]
    for every, epochs in ((6, [*first, 6]), (3, [*first, 5, 6])):
        rarely = trained(Trainer(architecture, dataset, replace(recipe, score_every=every), threads=1, rungs=(2, 6)))
        assert scored(rarely) == epochs
        assert [each.loss for each in rarely.history] == [each.loss for each in often.history]
        assert all(rarely.history[epoch - 1].scores == often.history[epoch - 1].scores for epoch in epochs)
        before, after = often.weights(), rarely.weights()
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_training_that_stops_after_an_unscored_epoch_goes_on_to_the_same_end(
    architecture: Architecture, dataset: Dataset, tmp_path: Path
) -> None:
    """It can go on with another `score_every`, which changes nothing of the training itself."""
    whole = trained(Trainer(architecture, dataset, RECIPE, threads=1))
    first = trained(Trainer(architecture, dataset, replace(RECIPE, score_every=6), threads=1), 4)
    first.save(tmp_path / "checkpoint.pt")
    for every, epochs in ((6, [6]), (5, [5, 6])):
        second = Trainer(architecture, dataset, replace(RECIPE, score_every=every), threads=1)
        second.restore(tmp_path / "checkpoint.pt")
        assert (second.epoch, scored(second)) == (4, [])
        trained(second)
        assert scored(second) == epochs
        assert second.history[-1].scores == whole.history[-1].scores
        assert all(torch.equal(second.weights()[name], kept) for name, kept in whole.weights().items())


def test_images_to_come_are_those_that_are_counted(architecture: Architecture, dataset: Dataset) -> None:
    counted: list[int] = []
    recipe = replace(RECIPE, epochs=2, score_every=2)
    trainer = Trainer(architecture, dataset, recipe, threads=1, count=counted.append)
    for images in (8, 8 + 4):  # the second epoch is scored
        assert trainer.images_to_come == images
        counted.clear()
        trainer.run_epoch()
        assert sum(counted) == images


def test_the_line_of_an_unscored_epoch_has_no_score(architecture: Architecture, dataset: Dataset) -> None:
    trainer = trained(Trainer(architecture, dataset, replace(RECIPE, epochs=2, score_every=2), threads=1))
    first, last = map(str, trainer.history)
    assert first == f"epoch 1/2  loss {trainer.history[0].loss:.3f}"
    assert last.startswith("epoch 2/2  loss ")
    assert "  mIoU " in last
