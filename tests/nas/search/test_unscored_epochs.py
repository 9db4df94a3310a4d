"""A search scores only where a schedule ends: its lines, results and files, and trainings interrupted in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.data import DataSpec
from nas.report import summarize
from nas.runs.folder import RunFolder
from nas.runs.labelling import WEIGHTS
from nas.runs.steps import Step
from nas.runs.trial import Rung, Trial
from nas.search.console import Console
from nas.search.propose.outcomes import Trainings
from nas.search.search import Workers
from nas.search.train.executor import configured
from nas.search.train.job import Job, recipe_of
from nas.search.train.trial_runner import TrialRunner
from nas.study import Study, built_in_study
from nas.training import Variant
from nas.training.weights import load_weights

EPOCHS, RUNG = 6, 2
WORKERS = Workers(concurrent=1, threads=1, device="cpu")


def asked(score_every: int | None = None) -> Study:
    small = built_in_study("10ms")
    return replace(
        small,
        data=DataSpec(size=(48, 64), train_images=4, validation_images=2),
        recipe=replace(small.recipe, epochs=EPOCHS, crop=None, score_every=score_every),
    )


@pytest.fixture
def trial(narrow: Trial) -> Trial:
    """A candidate that is to be trained to its first rung."""
    return replace(narrow, rungs=(Rung(epochs=RUNG, number=1, budget_milliseconds=10.0),))


def begun(root: Path, study: Study, trial: Trial) -> RunFolder:
    run = RunFolder.create(root, study)
    run.write_trial(trial)
    return run


def trained(run: RunFolder, epochs: int = 100) -> list[dict[str, object]]:
    """The results of an epoch each, until the training of the run's trial pauses or its process is killed."""
    runner = TrialRunner(config=configured(Job(trial=run.trials()[0], phase="search"), run, WORKERS))
    results: list[dict[str, object]] = []
    while len(results) < epochs and not (results and results[-1]["done"]):
        results.append(runner.train())
    runner.stop()
    return results


def goes_on(run: RunFolder) -> None:
    """Let the run's trial go on to the end."""
    (trial,) = run.trials()
    further = Rung(epochs=EPOCHS, number=2, budget_milliseconds=10.0)
    run.write_trial(replace(trial, rungs=(*trial.rungs, further)))


def test_a_search_scores_where_schedules_end_unless_its_recipe_says_otherwise() -> None:
    def every(study: Study, variant: Variant, epochs: int) -> tuple[int | None, int | None]:
        whole = recipe_of(study, "search", variant, study.recipe.epochs)
        return whole.score_every, recipe_of(study, "finish", variant, epochs).score_every

    assert every(asked(), Variant(ema_decay=0.9), 20) == (EPOCHS, 20)
    assert every(asked(3), Variant(), 20) == (3, 3)


def test_a_training_killed_after_an_unscored_epoch_goes_on_to_the_same_end(tmp_path: Path, trial: Trial) -> None:
    often, run = begun(tmp_path / "often", asked(1), trial), begun(tmp_path / "run", asked(), trial)
    for each in (often, run):
        (first, *_, last) = trained(each)
        assert ("miou" in first, "pixel_accuracy" in first) == (each is often, each is often)
        assert (last["epoch"], last["miou"]) == (RUNG, each.progress(trial, "search").miou)
        assert {"loss", "seconds"} <= first.keys() & last.keys()
        goes_on(each)
    trained(often)

    (killed,) = trained(run, 1)
    assert (killed["epoch"], killed["done"], "miou" in killed) == (RUNG + 1, False, False)
    (going,) = run.trials()
    known = Trainings(run, EPOCHS)
    assert not known.settled(going)
    assert (known.epochs(going), known.score(going, RUNG + 1)) == (RUNG + 1, None)
    outcome = known.outcome(Step(number=1, trial=going, place=0))
    assert (outcome.miou, outcome.fidelity) == (known.score(going, RUNG), RUNG / EPOCHS), "that of the rung before"
    assert not run.is_done(going, "search")
    assert (run.progress(going, "search").miou, run.best_miou(going)) == (None, None)
    summary = summarize(run)
    assert summary.going.under_way == 1
    assert (summary.trials[0].status, summary.trials[0].miou) == ("unfinished", outcome.miou)

    results = trained(run)
    assert [each["epoch"] for each in results] == [RUNG + 2, RUNG + 3, EPOCHS]
    assert run.is_done(going, "search")
    scores = [each.progress(going, "search").history for each in (run, often)]
    assert [each.epoch for each in scores[0] if each.scores is not None] == [RUNG, EPOCHS]
    assert all(each.scores in (None, same.scores) for each, same in zip(*scores, strict=True))
    weights, others = (load_weights(each.phase_path(going, "search") / WEIGHTS) for each in (run, often))
    assert all(torch.equal(weights[name], others[name]) for name in others)


def test_the_line_of_an_unscored_epoch_shows_its_loss(
    tmp_path: Path, trial: Trial, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path / "run", asked(), trial)
    console, job = Console(run, run.study()), Job(trial=trial, phase="search")
    console.epoch(job, 1, 1.23456, None)
    console.epoch(job, 2, 1.0, 0.2512)
    unscored, scored = capsys.readouterr().out.splitlines()
    assert "narrow                   epoch 1/6  loss   1.235     5.00  of 10 ms  " in unscored
    assert "narrow                   epoch 2/6  mIoU  25.1 %     5.00  of 10 ms  " in scored
    assert "mIoU" not in unscored
