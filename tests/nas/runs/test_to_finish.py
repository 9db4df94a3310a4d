"""The trainings still to come after a run's candidates: finalists, pruned networks, company and recipes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.latency.record import Latency
from nas.runs.finish_recipe import FinishRecipe, Tried, tried_path, write_finish_recipe
from nas.runs.folder import RunFolder
from nas.runs.to_finish import ToFinish, to_finish
from nas.runs.trial import PROGRESS, Epoch, Origin, Progress, Trial
from nas.storage.files import write_text
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores, Variant
from space import Architecture, strict
from space.scale import scale_width

STUDY = Study(
    data=DataSpec(),
    budgets=("5ms", "10ms"),
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=4, batch_size=4),
    search=SearchPlan(
        finalists=2,
        finish_epochs=12,
        company=("erfnet", "fplnet", "regseg"),
        pruned=1,
        finish_recipes=(Variant(), Variant(ema_decay=0.9, epochs=8)),
    ),
)
LATENCY = Latency(
    p50_milliseconds=1.0, p90_milliseconds=1.0, p99_milliseconds=1.0, ci_low_milliseconds=1.0, ci_high_milliseconds=1.0,
    samples=20, ratio=1.0, ratio_low=1.0, ratio_high=1.0, reference_milliseconds=1.0, raw_p50_milliseconds=1.0,
    target="null@cpu:1", height=180, width=240, scope="an invented device",
)  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", STUDY)


def left(run: RunFolder) -> ToFinish:
    return to_finish(run, STUDY, STUDY.asked)


@pytest.fixture
def trial(run: RunFolder) -> Callable[..., Trial]:
    """A network of a run that takes some milliseconds."""

    def made(name: str, origin: Origin, architecture: Architecture, milliseconds: float, failed: str = "") -> Trial:
        latency = replace(
            LATENCY,
            **{f"{each}_milliseconds": milliseconds for each in ("p50", "p90", "p99", "ci_low", "ci_high", "raw_p50")},
        )
        found = Trial(
            number=1, name=name, origin=origin, architecture=architecture, latency=latency, feasible=True,
            budget_milliseconds=10.0, parameters=1, multiply_adds=1, failed=failed,
        )  # fmt: skip
        run.write_trial(found)
        return found

    return made


def train(folder: Path, done: int, epochs: int) -> None:
    scores = Scores(miou=0.3, class_iou=(0.3,), pixel_accuracy=0.3)
    numbers = range(1, done + 1)
    history = tuple(Epoch(epoch=each, epochs=epochs, loss=1.0, seconds=1.0, scores=scores) for each in numbers)
    write_text(folder / PROGRESS, strict.dump(Progress(history=history)))


def test_all_trainings_are_left_in_a_new_run(run: RunFolder) -> None:
    assert left(run) == ToFinish(
        finalists=(12,) * 4, pruned=(12, 12), company=dict.fromkeys(STUDY.search.company, 16), tries=(3, 2)
    )
    assert left(run).epochs == 4 * 12 + 2 * 12 + 3 * 16 + 5


def test_finished_trainings_are_not_left(run: RunFolder, trial: Callable[..., Trial]) -> None:
    narrow, wide = (scale_width(space.load("ndnet29-fcn32"), factor) for factor in (0.1, 0.2))
    train(run.phase_path(trial("narrow", "random", narrow, 4.0), "finish"), 12, 12)  # inside both budgets
    train(run.phase_path(trial("wide", "random", wide, 9.0), "finish"), 5, 12)
    erfnet = trial("erfnet", "company", space.load("erfnet"), 20.0)
    train(run.phase_path(erfnet, "search"), 4, 4)
    train(run.phase_path(erfnet, "finish"), 2, 12)
    trial("fplnet", "company", space.load("fplnet"), 20.0, failed="a loss of NaN")
    cut = trial("erfnet, pruned", "pruned", scale_width(space.load("erfnet"), 0.1), 8.0)
    train(run.phase_path(cut, "finish"), 11, 12)
    found = left(run)
    assert (found.finalists, found.pruned) == ((0, 12, 0, 7), (12, 1))
    assert found.company == {"erfnet": 10, "fplnet": 0, "regseg": 16}


def test_recipes_that_were_tried_are_not_left(run: RunFolder, trial: Callable[..., Trial]) -> None:
    network = trial("random 1", "random", space.load("erfnet"), 9.0)
    tried = (Tried(recipe=Variant(), epochs=3, miou=0.4), Tried(recipe=Variant(ema_decay=0.9, epochs=8), epochs=2))
    recipe = FinishRecipe(tried=tried, network=network.architecture.key)
    write_finish_recipe(run, recipe)
    train(tried_path(run, network, 1), 1, 2)
    assert left(run).tries == (1,)
    assert left(run).finalists == (12,) * 4
    write_finish_recipe(run, replace(recipe, chosen=1))
    assert left(run).tries == ()
    assert left(run).finalists == (8,) * 4, "the one that is chosen is shorter"
