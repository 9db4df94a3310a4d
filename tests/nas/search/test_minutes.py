"""The minutes of a search: the time that it has spent, and the minutes that a new or resumed search has."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from nas.commands.search import _new, _resumed, add_arguments
from nas.data import DataSpec
from nas.runs.folder import SPENT, RunFolder
from nas.runs.spent import Spent, Stopwatch, forget_spent, spent_of
from nas.study import SearchPlan, Study, built_in_study
from nas.training import Variant, load_recipe
from space import UserError


def study(minutes: float) -> Study:
    """A study with some minutes, which is not the built-in one."""
    return Study(
        data=DataSpec(),
        budget="5ms",
        recipe=load_recipe("quick"),
        target="onnxruntime@cpu:1",
        search=SearchPlan(minutes=minutes),
    )


def test_time_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("nas.runs.spent.time.monotonic", lambda: now[0])
    run = RunFolder.create(tmp_path / "run", study(10.0))
    first = Stopwatch(run)
    now[0] += 42
    first.keep()
    now[0] = 7  # another command, after a restart of the machine
    with Stopwatch(run) as second:
        now[0] += 3
        second.keep()  # too soon to be written again
        assert spent_of(run).seconds == 42
        assert second.spent.seconds == 45
    assert spent_of(run).seconds == 45
    RunFolder(run.root).withdraw()
    again = RunFolder.create(run.root, study(10.0))  # another run in the same folder
    assert spent_of(again).seconds == 0


def test_a_changed_question_starts_with_no_time_spent(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", study(10.0))
    (run.root / SPENT).write_text("seconds: 500\nclosed_minutes: 10\n", "utf-8")
    forget_spent(run)
    assert spent_of(run) == Spent()
    forget_spent(run)  # a run without the file


@pytest.mark.parametrize(
    ("words", "minutes"),
    [
        ([], 4.5),
        (["--budget", "8ms"], 4.5),
        (["--budget", "8ms", "--budget", "20ms"], 0.0),
        (["--frontier"], 0.0),
        (["--frontier", "--minutes", "30"], 30.0),
    ],
)
def test_a_resumed_built_in_search_has_its_minutes_only_for_one_budget(
    tmp_path: Path, words: list[str], minutes: float
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run = RunFolder.create(tmp_path / "run", built_in_study("10ms"))
    _, asked = _resumed(parser.parse_args(["--resume", str(run.root), *words]))
    assert asked.search.minutes == minutes
    own = RunFolder.create(tmp_path / "own", study(7.0))
    _, asked = _resumed(parser.parse_args(["--resume", str(own.root), *words]))
    assert asked.search.minutes == (30.0 if "30" in words else 7.0), "they are the study's"


@pytest.mark.parametrize(
    ("words", "minutes"),
    [
        (["--budget", "10ms"], 4.5),
        (["--budget", "10ms", "--budget", "20ms"], 0.0),
        (["--budget", "10ms", "--frontier"], 0.0),
        (["--budget", "10ms", "--budget", "20ms", "--minutes", "30"], 30.0),
    ],
)
def test_the_built_in_search_has_its_minutes_only_for_one_budget(
    tmp_path: Path, words: list[str], minutes: float
) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    folder, asked = _new(parser.parse_args([*words, "--out", str(tmp_path / "run"), "--target", "null@cpu:1"]))
    assert asked.search.minutes == minutes
    run = RunFolder.create(folder.root, asked)
    assert run.study().search.minutes == minutes
    assert run.study().search.finishing == (Variant(ohem_probability=0.7),)


def test_impossible_values_of_spent_time_are_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", study(10.0))
    (run.root / SPENT).write_text("seconds: -3\n", "utf-8")
    with pytest.raises(UserError, match="seconds: expected 0 or more, got -3"):
        Stopwatch(run)
    (run.root / SPENT).write_text("seconds: 3\nclosed_minutes: .inf\n", "utf-8")
    with pytest.raises(UserError, match="closed_minutes"):
        Stopwatch(run)


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf")])
def test_impossible_minutes_are_refused(minutes: float) -> None:
    with pytest.raises(UserError, match=r"search\.minutes: expected 0 or more"):
        SearchPlan(minutes=minutes)
