"""Readable files of a run that contradict each other: a resumed search reports it in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import space
from nas.runs.folder import RunFolder
from nas.runs.trial import Rung, Trial
from nas.study import built_in_study

Nas = Callable[..., Any]
EPOCHS = built_in_study("10ms").recipe.epochs
TRIAL = Trial(
    number=1,
    name="random 1",
    origin="random",
    architecture=space.load("ndnet29-fcn32"),
    latency=None,
    feasible=False,
    budget_milliseconds=10.0,
    parameters=1,
    multiply_adds=1,
    rungs=(Rung(epochs=EPOCHS, number=1, budget_milliseconds=10.0),),
)
FILE = f"trials/{TRIAL.architecture.key}/trial.yaml"


def of_another_network(run: RunFolder) -> None:
    other = replace(TRIAL, number=2, architecture=space.load("erfnet"))
    run.write_trial(other)
    (run.root / FILE).write_bytes((run.trial_path(other) / "trial.yaml").read_bytes())


def with_fewer_epochs(run: RunFolder) -> None:
    study = run.study()
    run.write_study(replace(study, recipe=replace(study.recipe, epochs=EPOCHS - 1)))


CONTRADICTIONS: Mapping[str, tuple[Callable[[RunFolder], None], str]] = {
    "a trial in the folder of another": (
        of_another_network,
        "expected the architecture that its folder is named after",
    ),
    "more epochs than the recipe": (
        lambda run: run.write_trial(
            replace(TRIAL, rungs=(*TRIAL.rungs, Rung(epochs=EPOCHS + 1, number=2, budget_milliseconds=10.0)))
        ),
        f"rungs: expected no epoch after {EPOCHS}, the last one of the recipe in ",
    ),
    "a recipe with fewer epochs": (
        with_fewer_epochs,
        f"rungs: expected no epoch after {EPOCHS - 1}, the last one of the recipe in ",
    ),
    "a cut of no network": (
        lambda run: run.write_trial(replace(TRIAL, origin="pruned", parent="erfnet", rungs=())),
        "parent: expected a network in ",
    ),
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_a_resumed_search_names_the_file_that_contradicts_another(contradiction: str, nas: Nas, tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", replace(built_in_study("10ms"), target="null@cpu:1"))
    run.write_trial(TRIAL)
    contradict, words = CONTRADICTIONS[contradiction]
    contradict(run)
    said = nas("search", "--resume", run.root).refusal()
    assert f"{run.root / FILE}: {words}" in said
