"""Memory for scoring whole pictures, far larger than crops: batches of scoring fit where training steps fit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace

import pytest

from nas.data import Split
from nas.data.share import Share
from nas.runs.epochs import held_mode
from nas.training import Recipe
from nas.training.evaluation import evaluate
from nas.training.loaders import statistics_of
from nas.training.normalisation import reestimate_batch_norm
from nas.training.room import pictures_at_once, training_bytes
from nas.training.trainer import Trainer
from space import load
from space.count import memory
from space.errors import ArchitectureError

RECIPE = Recipe(optimizer="sgd", learning_rate=0.01, epochs=1, batch_size=4, crop=(16, 16), batch_norm_batches=2)


def test_pictures_are_scored_in_batches_that_need_no_more_memory_than_a_step() -> None:
    network, large = load("ddrnet23-slim"), (1024, 2048)
    recipe = replace(RECIPE, batch_size=16, crop=(256, 256))
    at_once = pictures_at_once(network, recipe, large, 19)
    step, whole = memory(network, (256, 256), 19).training_bytes(16), memory(network, large, 19)
    assert whole.inference_bytes(at_once) <= step < whole.inference_bytes(at_once + 1)
    assert pictures_at_once(network, replace(recipe, crop=None), large, 19) == 16
    assert pictures_at_once(network, replace(recipe, crop=(16, 16)), large, 19) == 1
    assert pictures_at_once(network, replace(recipe, crop=(16, 16)), large, 19, share=Share(count=3)) == 3


def test_scores_of_a_training_do_not_depend_on_the_size_of_batches(architecture, dataset) -> None:
    told: list[int] = []
    large = replace(dataset, size=(64, 96))
    trainer = Trainer(architecture, large, RECIPE, count=told.append)
    scores = trainer.run_epoch().scores
    assert told == [4, 4, 2, 2], "two steps, and four pictures to score"
    network = architecture.build(3)
    network.load_state_dict(trainer.weights())
    assert evaluate(network, large, batch_size=4) == scores


def test_statistics_from_smaller_batches_are_of_the_same_pictures(architecture, dataset) -> None:
    six = Split(images=dataset.train.images[:6], labels=dataset.train.labels[:6])
    for size, expected in (((64, 96), [2, 2, 2]), ((32, 48), [4, 2])):
        told: list[int] = []
        resized = replace(dataset, size=size, train=six)
        found = statistics_of(architecture, resized, RECIPE, 2, device="cpu", threads=1)
        reestimate_batch_norm(architecture.build(3), found.loader, found.batches, count=told.append)
        assert told == expected


def test_a_training_whose_pictures_cannot_be_scored_is_refused_before_it_begins(
    architecture, dataset, monkeypatch, tmp_path
) -> None:
    large = replace(dataset, size=(128, 192))
    steps, scoring = memory(architecture, (16, 16), 3).training_bytes(4), memory(architecture, (128, 192), 3)
    assert steps < scoring.inference_bytes() == training_bytes(architecture, RECIPE, (128, 192), 3)
    for name in ("free_bytes", "whole_bytes"):
        monkeypatch.setattr(f"nas.host.memory.{name}", lambda device: steps)
    with pytest.raises(ArchitectureError, match="at 128x192 for scoring a whole picture, which needs"):
        Trainer(architecture, large, RECIPE)
    with pytest.raises(ArchitectureError, match="at 128x192 for scoring a whole picture, which needs"):
        held_mode(
            tmp_path, architecture, large, replace(RECIPE, probe=True), device="cpu", threads=1, guard=nullcontext
        )
