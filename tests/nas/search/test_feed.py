"""Messages from and to Ray, without a Ray: troubles of a driver or a worker become no verdict."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import space
from nas.errors import HaltedError
from nas.latency.record import Latency
from nas.runs.folder import RunFolder
from nas.runs.trial import Epoch, append_epoch
from nas.search.cluster import nodes, waiting
from nas.search.search import Candidate, Search
from nas.search.train import under_way
from nas.search.train.executor import MOST_RESTARTS, Feed, Halt, Jobs, Scheduler, StartCallback
from nas.search.train.job import Job, Try
from nas.search.train.trial_runner import LAST_WORDS
from nas.search.train.under_way import MOST_REPORTED, WORDS, UnderWay, kept_in
from nas.storage.files import write_text
from nas.study import built_in_study
from nas.training.scores import Scores
from space.errors import BudgetError, UserError

Ended = list[tuple[str, int, str]]
RESULT = {"epoch": 1, "loss": 1.5, "miou": 0.2, "failed": "", "advice": "", "fault": ""}
FULL = {
    "epoch": 0,
    "failed": "OSError: [Errno 28] No space left on device",
    "advice": "make room",
    "fault": "",
}
DIVERGED = {"epoch": 0, "failed": "expected finite numbers, got a loss of nan", "advice": "", "fault": ""}


@pytest.fixture
def search(search_of: Callable[[RunFolder], Search], tmp_path: object) -> Search:
    return search_of(RunFolder.create(tmp_path / "run", built_in_study("10ms")))  # type: ignore[operator]


@pytest.fixture
def job(search: Search, invented: Callable[[float], Latency]) -> Job:
    candidate = Candidate(name="erfnet x1.00", origin="seed", architecture=space.load("erfnet"), parent="erfnet")
    return Job(trial=search.trial(1, candidate, invented(5.0)), phase="search")


@pytest.fixture
def feed_of(search: Search, job: Job) -> Callable[..., tuple[Feed, Ended]]:
    """A feed that has given out one job, and the recorded ends of jobs."""

    def make(**changed: object) -> tuple[Feed, Ended]:
        ended: Ended = []
        jobs = {
            "next": lambda: job,
            "epoch": lambda *_: None,
            "end": lambda job, epoch, failed: ended.append((job.trial.name, epoch, failed)),
        }
        feed = Feed(search, Jobs(**(jobs | changed)))  # type: ignore[arg-type]
        feed.suggest("a")
        return feed, ended

    return make


def test_a_full_disk_in_a_worker_halts_the_run_without_a_verdict(feed_of: Callable[..., tuple[Feed, Ended]]) -> None:
    feed, ended = feed_of()
    feed.on_trial_result("a", RESULT)
    feed.on_trial_complete("a", FULL)
    assert ended == []
    assert isinstance(feed.broken, HaltedError)
    for words in (
        "erfnet x1.00",
        "No space left on device",
        "not marked as failed",
        "make room",
        "nas search --resume",
    ):
        assert words in str(feed.broken)
    assert "\n" not in str(feed.broken)
    assert Halt(feed).stop_all()
    assert feed.suggest("b") == Feed.FINISHED


def test_the_reason_for_waiting_is_printed_once_before_the_first_training(
    feed_of: Callable[..., tuple[Feed, Ended]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Halt(feed_of()[0]).stop_all()
    assert "wait" not in capsys.readouterr().out, "it is too early"
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.0)
    feed, _ = feed_of()
    Halt(feed).stop_all()
    Halt(feed).stop_all()
    said = capsys.readouterr().out
    assert said.count("wait    for a training to begin on 1 processor: there are ") == 1
    assert re.search(r"there are \d+ here, with a load of \d+\.\d; it begins sooner if less else runs\n", said)
    assert "ray" not in said.lower(), "nobody can look into a Ray of our own"
    feed, _ = feed_of()
    StartCallback(feed).on_trial_start(0, [], None)
    Halt(feed).stop_all()
    assert "wait" not in capsys.readouterr().out


def test_the_reason_for_waiting_on_a_cluster_refers_to_ray_status(
    search: Search, job: Job, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(nodes, "alive_nodes", list)
    joined = replace(search, workers=replace(search.workers, joined=True))
    feed = Feed(joined, Jobs(next=lambda: job, epoch=lambda *_: None, end=lambda *_: None))
    feed.suggest("a")
    Halt(feed).stop_all()
    assert "wait    for Ray to have 1 processor free; see `ray status`" in capsys.readouterr().out


def test_a_fault_of_the_program_ends_the_run_with_its_traceback(feed_of: Callable[..., tuple[Feed, Ended]]) -> None:
    feed, ended = feed_of()
    words = "Traceback (most recent call last):\nKeyError: 'ours'\n"
    feed.on_trial_complete("a", RESULT | {"epoch": 0, "failed": "KeyError: 'ours'", "fault": words})
    assert ended == []
    assert not isinstance(feed.broken, UserError)
    assert str(feed.broken) == words


def test_a_loss_of_nan_is_a_verdict(feed_of: Callable[..., tuple[Feed, Ended]]) -> None:
    feed, ended = feed_of()
    feed.on_trial_complete("a", DIVERGED)
    assert ended == [("erfnet x1.00", 0, DIVERGED["failed"])]
    assert feed.broken is None


def test_a_killed_process_is_no_verdict_but_a_crashed_one_is(
    feed_of: Callable[..., tuple[Feed, Ended]], search: Search, job: Job
) -> None:
    feed, ended = feed_of()
    feed.on_death("a", "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.")
    feed.on_trial_complete("a", error=True)
    assert ended == []
    assert "its process was killed 4 times" in str(feed.broken)
    words = search.run.phase_path(job.trial, "search") / LAST_WORDS
    words.parent.mkdir(parents=True)
    words.write_text("Fatal Python error: Segmentation fault\n")
    feed, ended = feed_of()
    feed.on_trial_complete("a", error=True)
    assert ended == [("erfnet x1.00", 0, "its process crashed 4 times: Segmentation fault")]


ACTOR = "The actor died unexpectedly before finishing this task.\n\tclass_name: A\n\tip: 10.0.0.3"
KILLED = f"{ACTOR}\nThe actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR"
UNAVAILABLE = "The actor c2 is unavailable: The actor is temporarily unavailable: RpcError: RPC error: Socket closed"
LOST = f"{ACTOR}\nThe actor died because its node has died. Node Id: 6b\n\tthe actor's node was terminated: SIGTERM"


class Training:
    """Ray's record of a training: the allowed deaths, and a file with the error of each."""

    trial_id = "a"

    def __init__(self, folder: Path) -> None:
        self.max_failures, self.error_file = MOST_RESTARTS, str(folder / "error.txt")

    def dies(self, told: str) -> None:
        with Path(self.error_file).open("a") as file:
            file.write(f"Failure # 1 (occurred at 2026-11-30_08-00-00)\n{told}\n")


@pytest.fixture
def cluster(search: Search, job: Job, monkeypatch: pytest.MonkeyPatch) -> tuple[Feed, Ended, list[dict[str, Any]]]:
    """A feed on a cluster, the recorded ends of its one job, and the nodes that are alive."""
    alive = [
        {"NodeID": str(number), "NodeManagerAddress": f"10.0.0.{number}", "Resources": resources}
        for number, resources in enumerate([{"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0}])
    ]
    monkeypatch.setattr(nodes, "alive_nodes", lambda: alive)
    monkeypatch.setattr(nodes, "LOOK_SECONDS", 0.0)
    workers = replace(search.workers, joined=True, device="cuda", threads=2)
    ended: Ended = []
    jobs = Jobs(
        next=lambda: job,
        epoch=lambda *_: None,
        end=lambda job, epoch, failed: ended.append((job.trial.name, epoch, failed)),
    )
    feed = Feed(replace(search, workers=workers), jobs)
    feed.suggest("a")
    StartCallback(feed).on_trial_start(0, [], None)
    assert not Halt(feed).stop_all(), "nothing is lost"
    return feed, ended, alive


def test_a_lost_node_is_reported_and_does_not_count_against_its_trainings(
    cluster: tuple[Feed, Ended, list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    feed, ended, alive = cluster
    training = Training(tmp_path)
    allowed = []
    for told, lost in ((KILLED, False), (UNAVAILABLE, True), (KILLED, False), (LOST, False)):
        training.dies(told)
        Scheduler(feed).on_trial_error(None, training)
        allowed.append(training.max_failures)
        if lost:  # Ray notices the loss after the end of the process
            alive[2] = alive[2] | {"NodeID": "3", "NodeManagerAddress": "10.0.0.3"}
            assert not Halt(feed).stop_all()
    assert allowed == [MOST_RESTARTS, MOST_RESTARTS, MOST_RESTARTS + 1, MOST_RESTARTS + 1]
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "lost" in line]
    assert line.endswith(
        "lost    the cluster's node 10.0.0.2: others go on with its trainings, from the last finished epochs"
    )
    feed.on_trial_complete("a", error=True)
    assert ended == [], "no verdict"
    assert "the cluster's node 10.0.0.3 that trained it is lost. The candidate is not marked as failed" in str(
        feed.broken
    )


def test_deaths_are_counted_beside_lost_nodes(
    cluster: tuple[Feed, Ended, list[dict[str, Any]]], tmp_path: Path
) -> None:
    feed, _, alive = cluster
    training = Training(tmp_path)
    for number in range(MOST_RESTARTS + 2):
        training.dies(KILLED)
        Scheduler(feed).on_trial_error(None, training)
        if number == 1:
            del alive[2]
            assert not Halt(feed).stop_all()
    assert training.max_failures == MOST_RESTARTS + 1, "Ray gives up now"
    feed.on_trial_complete("a", error=True)
    assert "its process was killed 5 times" in str(feed.broken)


def test_a_cluster_without_nodes_is_reported_and_halts_the_run_after_a_while(
    cluster: tuple[Feed, Ended, list[dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    feed, _, alive = cluster
    large = alive.pop()
    for _ in range(2):
        assert not Halt(feed).stop_all()
    words = "wait    for a node with 2 processors and a GPU: the cluster has none any more; see `ray status`"
    assert capsys.readouterr().out.count(words) == 1
    alive.append(large | {"NodeID": "3"})
    assert not Halt(feed).stop_all()
    monkeypatch.setattr(nodes, "LOST_SECONDS", 0.0)
    alive.pop()
    time.sleep(0.001)
    assert Halt(feed).stop_all()
    assert isinstance(feed.broken, HaltedError)
    for part in ("no node with 2 processors and a GPU any more", "ray start --address", "nas search --resume"):
        assert part in str(feed.broken)
    assert "\n" not in str(feed.broken)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), BudgetError("too small")])
@pytest.mark.parametrize("where", ["next", "epoch", "end"])
def test_errors_in_the_driver_are_raised_unchanged(
    where: str, error: Exception, feed_of: Callable[..., tuple[Feed, Ended]]
) -> None:
    def breaks(*_: object) -> None:
        raise error

    feed, ended = feed_of(**{where: breaks})
    if where != "next":
        feed.on_trial_result("a", RESULT)
        feed.on_trial_complete("a", RESULT)
    assert feed.broken is error
    assert ended == []


def test_the_feed_gives_no_job_while_it_has_to_wait(feed_of: Callable[..., tuple[Feed, Ended]]) -> None:
    feed, _ = feed_of(waits=lambda: True)
    assert feed.suggest("b") is None
    assert feed.broken is None


def test_the_progress_of_a_training_is_kept_in_its_folder_until_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_way, "KEEP_SECONDS", 0.001)
    with kept_in(tmp_path) as progress:
        assert (tmp_path / WORDS).read_text() == "begins"
        with progress.over("epoch 1/2", 22):
            progress.count(4)
            while not (tmp_path / WORDS).read_text().startswith("epoch 1/2: 4 of 22 images, "):
                time.sleep(0.001)
    assert not list(tmp_path.iterdir())


def test_progress_of_trainings_silent_for_long_is_printed_within_their_epochs(search: Search, job: Job) -> None:
    now: list[float] = [0.0]
    said: list[str] = []
    told = UnderWay(search.run, lambda job, words: said.append(f"{job.trial.name} {words}"), lambda: now[0])
    jobs = [replace(job, tries=Try(place=place, epochs=2)) for place in range(6)]
    for each in jobs[:5]:  # the sixth training has not begun
        write_text(each.folder(search.run) / WORDS, "epoch 1/2: 4 of 22 images")

    def after(seconds: float) -> int:
        """The number of trainings whose progress is printed after so many more seconds."""
        now[0] += seconds
        said.clear()
        told.look(jobs)
        return len(said)

    assert (after(0), after(20)) == (0, MOST_REPORTED)
    assert said[0] == "erfnet x1.00 epoch 1/2: 4 of 22 images"
    assert (after(10), after(9), after(8)) == (1, 0, 4)
    told.heard(jobs[0])
    assert (after(30), after(30)) == (4, 4), "what was kept of the first is older than its last line"


def test_an_epoch_that_waited_for_more_than_a_twentieth_of_its_time_is_marked(
    search: Search, job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = Scores(miou=0.25, class_iou=(0.25,), pixel_accuracy=0.5)
    epoch = Epoch(epoch=1, epochs=2, loss=1.0, seconds=1.0, scores=scores, waited_for_data=0.071, waited_for_lane=0.04)
    append_epoch(job.folder(search.run), epoch)
    search.console.epoch(job, 1, 1.0, 0.25)
    assert "  waited 7.1 % for data, about" in capsys.readouterr().out
    append_epoch(job.folder(search.run), replace(epoch, waited_for_data=0.04))
    search.console.epoch(job, 1, 1.0, 0.25)
    assert "waited" not in capsys.readouterr().out
