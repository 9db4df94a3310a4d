"""The process that Ray sets up for a training: it does nothing before it is asked to train."""

from __future__ import annotations

import contextlib
import re
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from nas.data import DataSpec
from nas.runs.folder import RunFolder
from nas.runs.trial import Trial
from nas.search.search import Workers
from nas.search.train import under_way
from nas.search.train.executor import configured
from nas.search.train.job import Job
from nas.search.train.trial_runner import TrialRunner
from nas.search.train.under_way import WORDS
from nas.storage.files import OWNER
from nas.study import built_in_study


@pytest.fixture
def prepared(narrow: Trial, tmp_path: Path) -> tuple[RunFolder, Trial, dict[str, Any]]:
    """A run, one of its candidates, and Ray's configuration for its training."""
    small = built_in_study("10ms")
    small = replace(
        small,
        data=DataSpec(size=(48, 64), train_images=4, validation_images=2),
        recipe=replace(small.recipe, epochs=1, crop=None),
    )
    run = RunFolder.create(tmp_path / "run", small)
    run.write_trial(narrow)
    workers = Workers(concurrent=1, threads=1, device="cpu")
    return run, narrow, dict(configured(Job(trial=narrow, phase="search"), run, workers))


def test_a_process_that_is_set_up_but_never_trains_changes_no_file(
    prepared: tuple[RunFolder, Trial, dict[str, Any]],
) -> None:
    """Ray sets up a second process for a job that another one does, and ends it without waiting."""
    run, trial, job = prepared
    folder = run.phase_path(trial, "search")
    idle, busy = TrialRunner(config=dict(job)), TrialRunner(config=dict(job))
    assert not folder.exists()
    assert busy.train()["done"]
    assert run.is_done(trial, "search")
    assert not [*folder.glob(".*.tmp"), *folder.glob(OWNER)]
    (events,) = (folder / "events").iterdir()
    assert b"mIoU" in events.read_bytes()
    idle.stop()
    assert busy.reset(dict(job))
    again = busy.train()
    assert (again["done"], again["epoch"], again["failed"]) == (True, 1, "")


def test_a_training_that_waits_to_begin_records_for_how_long(
    prepared: tuple[RunFolder, Trial, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, trial, job = prepared
    monkeypatch.setattr(under_way, "KEEP_SECONDS", 0.001)
    seen: set[str] = set()
    over = Event()

    def watch() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                seen.add((run.phase_path(trial, "search") / WORDS).read_text("utf-8"))

    watcher = Thread(target=watch)
    watcher.start()
    assert TrialRunner(config=job).train()["done"]
    over.set()
    watcher.join()
    assert any(re.fullmatch(r"begins: \d+ s so far", words) for words in seen), seen
