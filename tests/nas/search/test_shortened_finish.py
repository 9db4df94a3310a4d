"""The epochs of the finish in a search with a time limit: as many as fit into the time that is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.latency.record import Latency
from nas.runs.certificate import read_certificate
from nas.runs.finish_recipe import read_finish_recipe
from nas.runs.folder import RunFolder
from nas.runs.spent import Spent, Stopwatch
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.search.propose.deadline import Deadline
from nas.search.search import Candidate, Search
from nas.study import SearchPlan, Study
from nas.training import Scores, load_recipe
from space.scale import scale_width

MINUTES, WHOLE = 5.0, 12
CERTIFYING_SECONDS = 20 + 3 * 12  # three processes, each of which may wait for 12 s
SCORES = Scores(miou=0.3, class_iou=(0.3,) * 11, pixel_accuracy=0.3)


class Clock(Stopwatch):
    """A stopwatch that the test advances."""

    seconds = 0.0

    @property
    def spent(self) -> Spent:
        return replace(super().spent, seconds=self.seconds)


@pytest.fixture
def search(search_of: Callable[[RunFolder], Search], invented: Callable[[float], Latency], tmp_path: Path) -> Search:
    """A search with one worker, and two candidates with epochs of 5 and 20 s, of which 5 were spent waiting."""
    study = Study(
        data=DataSpec(name="road_scenes", size=(180, 240), train_images=4, validation_images=2),
        budget="5ms",
        recipe=replace(load_recipe("quick"), epochs=2),
        target="onnxruntime@cpu:1",
        search=SearchPlan(finish_epochs=WHOLE, minutes=MINUTES),
    )
    search = search_of(RunFolder.create(tmp_path / "run", study))
    assert search.workers.concurrent == 1
    for number, (factor, seconds, waited) in enumerate(((0.5, 5.0, None), (1.0, 20.0, 0.25)), 1):
        architecture = scale_width(space.load("fast-scnn"), factor)
        trial = search.trial(
            number, Candidate(name=str(number), origin="random", architecture=architecture), invented(4.0)
        )
        search.run.write_trial(trial)
        for epoch in (1, 2):
            ended = Epoch(epoch=epoch, epochs=2, loss=1.0, seconds=seconds, waited_for_lane=waited, scores=SCORES)
            append_epoch(search.run.phase_path(trial, "search"), ended)
    return search


def epochs_at(
    search: Search,
    seconds: float,
    networks: list[Trial],
    minutes: float = MINUTES,
    finishing: tuple[int, int] = (1, 1),
) -> int:
    """The epochs of the finish if it begins so many seconds after the start; `finishing`: number of trainings at a time
    then, and threads of each.
    """
    workers = replace(search.workers, concurrent=finishing[0], threads=finishing[1])
    search = replace(search, study=replace(search.study, search=replace(search.study.search, minutes=minutes)))
    with Clock(search.run) as clock:
        clock.seconds = seconds
        return Deadline(search, clock, workers).epochs_in_time(WHOLE, networks)


def test_the_finish_has_the_epochs_that_fit_into_the_time_left_but_at_least_a_third(search: Search) -> None:
    first, second = search.run.trials()
    end = 60 * MINUTES - CERTIFYING_SECONDS
    assert epochs_at(search, end - WHOLE * 5, [first]) == WHOLE
    assert epochs_at(search, end - WHOLE * 5 + 1, [first]) == WHOLE - 1
    assert epochs_at(search, end - WHOLE * (5 + 15), [first, second]) == WHOLE
    assert epochs_at(search, end - 7 * (5 + 15), [first, second]) == 7
    assert epochs_at(search, end, [first, second]) == WHOLE // 3
    assert epochs_at(search, 0.0, [first, second]) == WHOLE


def test_the_workers_of_the_finish_decide_how_much_fits(search: Search) -> None:
    networks, end = search.run.trials(), 60 * MINUTES - CERTIFYING_SECONDS
    candidates = replace(search, workers=replace(search.workers, concurrent=1, threads=2))
    left = end - 8 * 15  # for the longer of two, side by side
    assert epochs_at(candidates, left, networks, finishing=(2, 2)) == 8
    assert epochs_at(candidates, left, networks, finishing=(1, 2)) == 8 * 15 // (15 + 5)
    assert epochs_at(candidates, end - 2 * 8 * 15, networks, finishing=(2, 1)) == 8, "half of the threads"
    assert epochs_at(candidates, left, networks, finishing=(2, 4)) == 8, "a gain by more threads is not counted on"


def test_pruned_networks_are_finished_after_the_others(search: Search) -> None:
    plan = replace(search.study.search, company=("erfnet",), pruned=1)
    search = replace(search, study=replace(search.study, search=plan))
    left = 60 * MINUTES - CERTIFYING_SECONDS - 6 * (15 + 10)  # 10: the median
    for workers in (2, 3):
        assert epochs_at(search, left, search.run.trials(), finishing=(workers, 1)) == 6


def test_the_finish_is_whole_without_a_limit_and_after_the_limit_was_reached(search: Search) -> None:
    networks = search.run.trials()
    assert epochs_at(search, 10_000.0, networks, minutes=0.0) == WHOLE
    with Clock(search.run) as clock:
        clock.seconds = 60 * MINUTES + 1
    assert epochs_at(search, 60 * MINUTES + 1, networks) == WHOLE


@pytest.mark.slow
def test_a_search_without_time_left_finishes_its_networks_for_a_third_of_the_epochs(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        """
data: {name: road_scenes, size: [48, 64], train_images: 12, validation_images: 4}
budget: 3ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
search:
  {seeds: [ndnet45-fcn32], random_trials: 1, guided_trials: 0, finalists: 1, finish_epochs: 6, minutes: 0.1,
   company: [erfnet-encoder], pruned: 0, concurrent: 2}
"""
    )
    words = ("search", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run"))
    done = subprocess.run([sys.executable, "-m", "nas.cli", *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the finish has 2 epochs instead of 6" in done.stdout
    run = RunFolder.open(tmp_path / "run")
    recipe = read_finish_recipe(run)
    assert recipe is not None
    assert recipe.epochs == 2
    ends = [len(run.progress(trial, "finish").history) for trial in (*run.trials(), *run.company())]
    assert sorted({0, *ends}) == [0, 2]
    assert ends.count(2) == 2, "the finalist and the company"
    assert read_certificate(run.winner).passed
