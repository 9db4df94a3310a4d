"""A run goes on only with the data of its beginning, wherever they are now."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import space
from nas.data import DataSpec, check, load
from nas.latency.record import Latency
from nas.runs.data_seen import FILE, hold_to_data
from nas.runs.folder import RunFolder
from nas.runs.terms import keep_terms
from nas.runs.trial import Trial
from nas.study import load_study

Nas = Callable[..., Any]
STUDY = """
data: {name: folder, root: %s, size: [48, 64]}
budget: 10ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
"""


@pytest.fixture
def project(tmp_path: Path, invented: Callable[[float], Latency]) -> Path:
    """A folder with a data set `d` and a run that has begun on it."""
    root = tmp_path / "project"
    scenes = load(DataSpec(size=(48, 64), train_images=4, validation_images=2))
    for split, pairs in (("train", scenes.train), ("val", scenes.validation)):
        for kind, files in (("images", pairs.images), ("labels", pairs.labels)):
            (root / "d" / split / kind).mkdir(parents=True)
            for file in files:
                shutil.copy(file, root / "d" / split / kind)
    (root / "d" / "classes.yaml").write_text(f"classes: [{', '.join(scenes.classes)}]\nvoid: 11\n")
    (root / "study.yaml").write_text(STUDY % "d")
    run = RunFolder.create(root / "run", load_study(root / "study.yaml"))
    study = run.study()
    hold_to_data(run.root, check(load(study.data)).fingerprint, root=study.data.root, begun=False)
    architecture = space.load("ndnet45-fcn32")
    run.write_trial(
        Trial(
            number=1,
            name="a",
            origin="seed",
            architecture=architecture,
            latency=replace(invented(1.0), target="null@cpu:1", height=48, width=64, environment={"cpu": "another"}),
            feasible=True,
            budget_milliseconds=10,
            parameters=1,
            multiply_adds=1,
        )
    )
    return root


def swap_labels(root: Path) -> None:
    values = np.array([1, 0, *range(2, 256)], np.uint8)
    for path in root.glob("*/labels/*.png"):
        Image.fromarray(values[np.array(Image.open(path))]).save(path)


def test_changed_labels_and_classes_are_refused(project: Path, nas: Nas) -> None:
    swap_labels(project / "d")
    said = nas("search", "--resume", project / "run").refusal()
    assert "but the train labels and the validation labels have changed" in said
    swap_labels(project / "d")
    classes = project / "d" / "classes.yaml"
    classes.write_text(classes.read_text().replace("sky, building", "building, sky"))
    assert "but the classes were sky, building" in nas("search", "--resume", project / "run").refusal()


def test_a_changed_recipe_or_target_in_the_study_is_refused(project: Path, nas: Nas) -> None:
    run = RunFolder.open(project / "run")
    keep_terms(run, run.study())
    study = run.study_path.read_text()
    for before, now in (("epochs: 1", "epochs: 2"), ("null@cpu:1", "torch@cpu:1")):
        run.study_path.write_text(study.replace(before, now))
        assert re.search(
            r"study\.yaml: (recipe\.epochs|target): expected ", nas("search", "--resume", run.root).refusal()
        )


@pytest.mark.slow
def test_a_run_that_began_on_another_device_is_refused(project: Path, nas: Nas) -> None:
    said = nas("search", "--resume", project / "run").refusal()
    assert "its candidates were timed otherwise (cpu another before, " in said


def test_a_run_without_a_fingerprint_keeps_one_from_now_on(project: Path) -> None:
    run = RunFolder.open(project / "run")
    before = (run.root / FILE).read_text()
    (run.root / FILE).unlink()
    study = run.study()
    hold_to_data(run.root, check(load(study.data)).fingerprint, root=study.data.root, begun=True)
    assert (run.root / FILE).read_text() == before


def test_data_that_moved_with_the_run_are_found(project: Path) -> None:
    moved = project.with_name("renamed")
    project.rename(moved)
    study = RunFolder.open(moved / "run").study()
    assert study.data.root == str(moved / "d")
    assert "name: folder" in (moved / "run" / "study.yaml").read_text()


def test_data_that_moved_alone_are_requested_and_accepted(project: Path, nas: Nas, tmp_path: Path) -> None:
    (project / "d").rename(tmp_path / "new place")
    run = project / "run"
    before = (run / "study.yaml").read_text()
    said = nas("search", "--resume", run).refusal()
    assert f"{project / 'd'}, which held the data of this run, is not a folder here" in said
    assert f"nas search --resume {run} --data DIR" in said
    swap_labels(tmp_path / "new place")  # so that the search ends at the check of the data
    for given in (str(tmp_path / "new place"), f"folder:{tmp_path / 'new place'}"):
        assert "labels have changed" in nas("search", "--resume", run, "--data", given).refusal()
    assert (run / "study.yaml").read_text() == before, "what was refused is not asked again"
    assert "check the path" in nas("search", "--resume", run, "--data", tmp_path / "nowhere").refusal()
    assert "--data: expected --resume or a study" in nas("search", "--budget", "5ms", "--data", tmp_path).refusal()


def test_a_new_search_finds_the_data_of_its_study_elsewhere(tmp_path: Path, nas: Nas) -> None:
    study = tmp_path / "study.yaml"
    named = STUDY % "where they were"
    place = tmp_path / "place"
    place.mkdir()
    for text in (named, named.replace(", root: where they were", "")):
        study.write_text(text)
        for given in (str(place), f"folder:{place}"):
            said = nas("search", study, "--data", given, "--out", tmp_path / "run").refusal()
            assert f"{place}/classes.txt is missing" in said
            assert "where they were" not in said
    assert "check the path" in nas("search", study, "--data", tmp_path / "nowhere", "--out", tmp_path / "run").refusal()


def test_a_damaged_record_of_the_data_is_refused_in_one_line(project: Path, nas: Nas) -> None:
    for damage in (b"\xff\xfe\x00", b"fingerprint: 3", b"", os.urandom(50)):
        (project / "run" / FILE).write_bytes(damage)
        assert str(project / "run" / FILE) in nas("search", "--resume", project / "run").refusal()


def test_the_home_of_an_unknown_user_is_refused(tmp_path: Path, nas: Nas) -> None:
    (tmp_path / "study.yaml").write_text(STUDY % "~nobody-has-this-name/d")
    said = nas("search", tmp_path / "study.yaml", "--out", tmp_path / "run").refusal()
    assert "~nobody-has-this-name/d is not a folder" in said
