"""A search that is to be over in time: when it proposes nothing more, and what it still does then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from nas.data import DataSpec
from nas.latency.meter import Measures
from nas.runs.folder import SPENT, RunFolder
from nas.runs.spent import Stopwatch
from nas.runs.trial import Epoch, append_epoch
from nas.search.deadline import Deadline
from nas.search.proposals import Proposals
from nas.search.search import Search
from nas.study import SearchPlan, Study
from nas.training import Scores, load_recipe
from space import UserError

EPOCHS, FINISH = 8, 20


@dataclass
class Clock:
    """A stopwatch that somebody else advances."""

    seconds: float = 0.0

    def keep(self) -> None:
        """It is kept."""


def study(minutes: float, **plan: int) -> Study:
    return Study(
        data=DataSpec(name="road_scenes", size=(180, 240), train_images=4, validation_images=2),
        budget="5ms",
        recipe=replace(load_recipe("quick"), epochs=EPOCHS),
        target="onnxruntime@cpu:1",
        search=SearchPlan(
            seeds=("ndnet45-ende",), sampler="random", finalists=2, finish_epochs=FINISH, minutes=minutes,
            **{"random_trials": 1000, "guided_trials": 0} | plan,
        ),
    )  # fmt: skip


def searched(search: Search, meter: Measures, *, epoch_seconds: float, timing_seconds: float) -> float:
    """Seconds after which one worker has trained all that is proposed."""
    clock, run = Clock(), search.run
    source = Proposals(search, meter, None, Deadline(search, clock))  # type: ignore[arg-type]
    while not source.waits() and (trial := source.next()) is not None:
        clock.seconds += timing_seconds
        for epoch in range(len(run.progress(trial, "search").history) + 1, trial.until(EPOCHS) + 1):
            clock.seconds += epoch_seconds
            scores = Scores(miou=0.3, class_iou=(0.3,) * 11, pixel_accuracy=0.3)
            append_epoch(
                run.phase_path(trial, "search"),
                Epoch(epoch=epoch, epochs=EPOCHS, loss=1.0, seconds=epoch_seconds, scores=scores),
            )
        source.finished(trial, failed="")
    return clock.seconds


@pytest.mark.parametrize("epoch_seconds", [1.0, 6.0])
def test_candidates_leave_time_to_finish_the_best(
    tmp_path: Path,
    search_of: Callable[[RunFolder], Search],
    arithmetic: Measures,
    capsys: pytest.CaptureFixture[str],
    epoch_seconds: float,
) -> None:
    minutes = 15.0
    search = search_of(RunFolder.create(tmp_path / "run", study(minutes)))
    seconds = searched(search, arithmetic, epoch_seconds=epoch_seconds, timing_seconds=10)
    finishing = 2 * FINISH * epoch_seconds
    assert seconds + finishing < 60 * minutes
    assert seconds + finishing > 0.75 * 60 * minutes  # and not much is left over
    assert 2 < len(search.run.trials()) < 100
    assert "no more candidates: 15 minutes leave time to finish the best" in capsys.readouterr().out
    ended = [len(search.run.progress(trial, "search").history) for trial in search.run.trials() if trial.feasible]
    assert ended == [EPOCHS] * len(ended)


def test_what_paused_goes_on_to_the_end_when_nothing_more_is_proposed(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    asked = study(8.0, random_trials=2, guided_trials=1000)
    asked = replace(asked, search=replace(asked.search, sampler="surrogate"))
    search = search_of(RunFolder.create(tmp_path / "run", asked))
    seconds = searched(search, arithmetic, epoch_seconds=2, timing_seconds=5)
    assert seconds + 2 * FINISH * 2 < 60 * 8
    epochs = sorted(len(search.run.progress(trial, "search").history) for trial in search.run.trials())
    assert epochs[0] < EPOCHS  # some paused, and stay so
    assert epochs[-2:] == [EPOCHS, EPOCHS]  # the finalists do not


def test_there_is_a_candidate_however_little_time_there_is(
    tmp_path: Path, search_of: Callable[[RunFolder], Search], arithmetic: Measures
) -> None:
    search = search_of(RunFolder.create(tmp_path / "run", study(0.01)))
    searched(search, arithmetic, epoch_seconds=60, timing_seconds=60)
    assert len(search.run.trials()) == 1


def test_the_plan_ends_a_search_that_has_time_left(
    tmp_path: Path,
    search_of: Callable[[RunFolder], Search],
    arithmetic: Measures,
    capsys: pytest.CaptureFixture[str],
) -> None:
    search = search_of(RunFolder.create(tmp_path / "run", study(600.0, random_trials=2)))
    searched(search, arithmetic, epoch_seconds=1, timing_seconds=1)
    assert [trial.origin for trial in search.run.trials() if trial.feasible] == ["seed", "random", "random"]
    assert "no more candidates" not in capsys.readouterr().out


def test_time_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("nas.runs.spent.time.monotonic", lambda: now[0])
    run = RunFolder.create(tmp_path / "run", study(10.0))
    first = Stopwatch(run)
    now[0] += 42
    first.keep()
    now[0] = 7  # another command, on a machine that was started anew
    second = Stopwatch(run)
    now[0] += 8
    assert second.seconds == 42 + 8
    second.keep()
    assert Stopwatch(run).seconds == 50
    RunFolder(run.root).withdraw()
    again = RunFolder.create(run.root, study(10.0))  # another run in the same folder
    assert Stopwatch(again).seconds == 0


def test_a_file_that_says_otherwise_is_refused(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run", study(10.0))
    (run.root / SPENT).write_text("seconds: -3\n", "utf-8")
    with pytest.raises(UserError, match="seconds: expected 0 or more, got -3"):
        Stopwatch(run)


@pytest.mark.parametrize("minutes", [-1.0, float("nan"), float("inf")])
def test_no_minutes_that_are_none(minutes: float) -> None:
    with pytest.raises(UserError, match=r"search\.minutes: expected 0 or more"):
        SearchPlan(minutes=minutes)
