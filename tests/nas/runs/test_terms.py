"""The terms of a run: with a study changed by hand it goes on only if its candidates can still be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import space
from nas.data import DataSpec
from nas.latency.record import Latency
from nas.runs.finish_recipe import FinishRecipe, Tried, write_finish_recipe
from nas.runs.folder import FINISH, TERMS, RunFolder
from nas.runs.terms import keep_terms, require_terms
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores, Variant
from nas.training.recipe import EncoderStage
from space import UserError

LATENCY = Latency(
    p50_milliseconds=2.0, p90_milliseconds=2.1, p99_milliseconds=2.2, ci_low_milliseconds=1.9, ci_high_milliseconds=2.1,
    samples=20, ratio=0.4, ratio_low=0.4, ratio_high=0.4, reference_milliseconds=5.0, raw_p50_milliseconds=2.0,
    target="torch@cpu:1", height=48, width=64, scope="an invented device",
)  # fmt: skip
CANDIDATE = Trial(
    number=1,
    name="a",
    origin="seed",
    architecture=space.load("ndnet29-fcn32"),
    latency=LATENCY,
    feasible=True,
    budget_milliseconds=3.0,
    parameters=1,
    multiply_adds=1,
)
STAGE = EncoderStage(share=0.5, batch_size=4, class_weighting=None, labels="coarse", bias=True)
STUDY = Study(
    data=DataSpec(name="folder", root="data", size=(48, 64)),
    budget="3ms",
    target="torch@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.006, epochs=2, batch_size=4),
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has begun, with one timed candidate."""
    found = RunFolder.create(tmp_path / "run", STUDY)
    assert not keep_terms(found, STUDY)
    found.write_trial(CANDIDATE)
    return found


def refusal(run: RunFolder, study: Study) -> str:
    """The reason why a run does not go on with a study; empty if it does."""
    try:
        require_terms(run, study)
    except UserError as error:
        return str(error)
    return ""


def with_recipe(**changed: Any) -> Study:
    return replace(STUDY, recipe=replace(STUDY.recipe, **changed))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (with_recipe(learning_rate=0.1), r"recipe\.learning_rate: expected 0\.006, got 0\.1\. "),
        (with_recipe(ema_decay=0.9), r"recipe\.ema_decay: expected 0\.0, got 0\.9\. "),
        (with_recipe(encoder=STAGE), r"recipe\.encoder\.share: expected none, got 0\.5; recipe\.encoder\.batch_size: "),
        (replace(STUDY, target="torch@cpu:2"), r"target: expected torch@cpu:1, got torch@cpu:2\. "),
        (replace(STUDY, target="torch:bf16@cpu:1"), r"target: expected torch@cpu:1, got torch:bf16@cpu:1\. "),
        (replace(STUDY, target=""), r"target: expected torch@cpu:1, got none\. "),
        (replace(STUDY, data=replace(STUDY.data, size=(64, 48))), r"data\.size: expected 48x64, got 64x48\. "),
        (replace(STUDY, precisions=("fp32", "int8")), r"precisions: expected \(\), got \('fp32', 'int8'\)\. "),
    ],
)
def test_changes_of_a_study_that_prevent_comparison_are_refused_and_named(
    run: RunFolder, changed: Study, words: str
) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match=rf"study\.yaml: {words}.*begin a new search"):
            require_terms(run, changed)
        keep_terms(run, changed)
    require_terms(run, STUDY)


def test_a_removed_encoder_stage_is_named(tmp_path: Path) -> None:
    run, staged = RunFolder.create(tmp_path / "run", STUDY), with_recipe(encoder=STAGE)
    keep_terms(run, staged)
    run.write_trial(CANDIDATE)
    with pytest.raises(UserError, match=r"recipe\.encoder\.share: expected 0\.5, got none"):
        require_terms(run, STUDY)


def test_changes_of_a_study_that_allow_comparison_are_accepted(run: RunFolder) -> None:
    for changed in (
        replace(STUDY, budget="9ms"),
        replace(STUDY, patience_seconds=60.0),
        replace(STUDY, data=replace(STUDY.data, root="elsewhere")),
        replace(STUDY, target="torch:fp32@cpu:1"),
        replace(STUDY, target="torch@ssh:board/cpu:1"),
        with_recipe(init="moved.safetensors", seed=3, probe=True, score_every=2),
        replace(STUDY, space={"block": ("sep",)}, search=SearchPlan(random_trials=9)),
    ):
        assert refusal(run, changed) == ""


def test_a_study_can_be_changed_before_the_first_candidate(tmp_path: Path) -> None:
    run, other = RunFolder.create(tmp_path / "run", STUDY), with_recipe(learning_rate=0.1)
    keep_terms(run, STUDY)
    require_terms(run, other)
    keep_terms(run, other)
    run.write_trial(CANDIDATE)
    require_terms(run, other)
    with pytest.raises(UserError, match=r"learning_rate: expected 0\.1, got 0\.006"):
        require_terms(run, STUDY)


def test_a_run_of_an_earlier_version_keeps_its_terms_from_now_on(run: RunFolder) -> None:
    (run.root / TERMS).unlink()
    with pytest.raises(UserError, match="target"):
        require_terms(run, replace(STUDY, target="torch@cpu:2"))
    assert keep_terms(run, STUDY), "and says so"
    assert not keep_terms(run, STUDY)
    with pytest.raises(UserError, match="learning_rate"):
        require_terms(run, with_recipe(learning_rate=0.1))


def test_candidates_of_a_run_in_several_precisions_have_targets_of_their_own(run: RunFolder) -> None:
    asked = replace(STUDY, precisions=("fp32", "bf16"))
    (run.root / TERMS).unlink()
    run.write_trial(replace(CANDIDATE, latency=replace(LATENCY, target="torch:bf16@cpu:1")))
    keep_terms(run, asked)
    assert refusal(run, replace(asked, precisions=("bf16", "fp32"))) == ""
    assert "precisions: expected ('bf16', 'fp32'), got ()" in refusal(run, STUDY)


@pytest.mark.parametrize(("kept", "epochs"), [(Variant(), 20), (Variant(epochs=30), 30)])
def test_networks_are_finished_for_as_many_epochs_as_finished_ones(run: RunFolder, kept: Variant, epochs: int) -> None:
    write_finish_recipe(run, FinishRecipe(tried=(Tried(recipe=kept),), chosen=0))
    scores = Scores(miou=0.5, class_iou=(0.5,), pixel_accuracy=0.5)
    last = Epoch(epoch=1, epochs=epochs, loss=1.0, seconds=1.0, scores=scores)
    append_epoch(run.phase_path(CANDIDATE, "finish"), last)
    assert STUDY.search.finish_epochs == 20
    require_terms(run, STUDY)
    other = replace(STUDY, search=SearchPlan(finish_epochs=21))
    if kept.epochs:
        require_terms(run, other)
        return
    with pytest.raises(UserError, match=r"search\.finish_epochs: expected 20, got 21"):
        require_terms(run, other)


def test_a_damaged_file_of_terms_is_named(run: RunFolder) -> None:
    (run.root / TERMS).write_text("recipe: [48", "utf-8")
    with pytest.raises(
        UserError, match=rf"{run.root / TERMS}.*; if it was damaged, bring back the file that was there"
    ):
        require_terms(run, STUDY)
    keep_terms(run, STUDY)
    (run.root / TERMS).unlink()
    (run.root / FINISH).write_text("tried: 3", "utf-8")
    with pytest.raises(
        UserError, match=rf"{run.root / FINISH}.*expected a list.*; if it was damaged, bring back the file"
    ):
        require_terms(run, STUDY)
