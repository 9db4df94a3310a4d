"""A run whose study was changed by hand goes on only where its candidates still compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.runs.folder import TERMS, RunFolder
from nas.runs.terms import keep_terms, require_terms
from nas.runs.trial import Trial
from nas.study import SearchPlan, Study
from nas.training import Recipe
from space import UserError

STUDY = Study(
    data=DataSpec(name="folder", root="data", size=(48, 64)),
    budget="3ms",
    target="torch@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.006, epochs=2, batch_size=4),
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has begun: one candidate is too slow."""
    found = RunFolder.create(tmp_path / "run", STUDY)
    keep_terms(found, STUDY)
    begin(found)
    return found


def begin(run: RunFolder) -> None:
    network = space.load("ndnet29-fcn32")
    run.write_trial(
        Trial(
            number=1,
            name="a",
            origin="seed",
            architecture=network,
            latency=None,
            feasible=False,
            budget_milliseconds=3.0,
            parameters=1,
            multiply_adds=1,
        )
    )


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            replace(STUDY, recipe=replace(STUDY.recipe, learning_rate=0.1)),
            r"recipe\.learning_rate is 0\.1, and was 0\.006",
        ),
        (
            replace(STUDY, recipe=replace(STUDY.recipe, epochs=3, ema_decay=0.9)),
            r"recipe\.epochs is 3, and was 2, recipe\.ema_decay is 0\.9, and was 0\.0",
        ),
        (replace(STUDY, target="torch@cpu:2"), r"target is torch@cpu:2, and was torch@cpu:1"),
        (replace(STUDY, data=replace(STUDY.data, size=(64, 48))), r"size is \(64, 48\), and was \(48, 64\)"),
        (replace(STUDY, precisions=("fp32", "int8")), r"precisions is \('fp32', 'int8'\), and was \(\)"),
    ],
)
def test_what_would_not_compare_is_refused_and_named(run: RunFolder, changed: Study, words: str) -> None:
    with pytest.raises(UserError, match=rf"study\.yaml: {words} when the run began.* --from .*run"):
        require_terms(run, changed)
    keep_terms(run, changed)
    with pytest.raises(UserError, match=words):
        require_terms(run, changed)
    require_terms(run, STUDY)


def test_what_compares_may_be_others(run: RunFolder) -> None:
    for changed in (
        replace(STUDY, budget="9ms"),
        replace(STUDY, patience_seconds=60.0),
        replace(STUDY, data=replace(STUDY.data, root="elsewhere")),
        replace(STUDY, recipe=replace(STUDY.recipe, init="moved.safetensors")),
        replace(STUDY, space={"block": ("sep",)}, search=SearchPlan(random_trials=9)),
    ):
        require_terms(run, changed)


def test_a_run_in_which_nothing_was_timed_yet_can_be_asked_otherwise(tmp_path: Path) -> None:
    run, other = RunFolder.create(tmp_path / "run", STUDY), replace(STUDY, target="torch@cpu:2")
    keep_terms(run, STUDY)
    require_terms(run, other)
    keep_terms(run, other)
    begin(run)
    require_terms(run, other)
    with pytest.raises(UserError, match="target is torch@cpu:1, and was torch@cpu:2"):
        require_terms(run, STUDY)


def test_a_run_of_an_earlier_version_keeps_them_from_now_on(run: RunFolder) -> None:
    (run.root / TERMS).unlink()
    require_terms(run, STUDY)
    keep_terms(run, STUDY)
    with pytest.raises(UserError, match="target"):
        require_terms(run, replace(STUDY, target="torch@cpu:2"))


def test_a_damaged_file_is_named(run: RunFolder) -> None:
    (run.root / TERMS).write_text("size: [48", "utf-8")
    with pytest.raises(UserError, match=str(run.root / TERMS)):
        require_terms(run, STUDY)
