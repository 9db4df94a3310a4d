"""Runs trainings with Ray Tune.

Ray runs the jobs that `Feed` hands to it, on one machine or a cluster. It keeps no state for the search: every trial
writes its epochs and checkpoints into the run's folder (on a cluster, a folder that all nodes see), and the jobs of a
resumed run are found from there.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nas.errors import HaltedError
from nas.runs.folder import RunFolder
from nas.search.cluster.configured_ray import Callback, FIFOScheduler, Searcher, Stopper, TrialScheduler, tune
from nas.search.cluster.waiting import Waiting
from nas.search.search import Search, Workers
from nas.search.train.causes import REJOIN, Cause, cause_of_death
from nas.search.train.job import Job
from nas.search.train.loggers import loggers_of, name_of
from nas.search.train.trial_runner import LAST_WORDS, TrialRunner
from nas.search.train.under_way import UnderWay
from nas.storage.scratch import scratch_folder
from space import strict

MOST_RESTARTS = 3  # of a training whose process died; each goes on from the checkpoint
FAILURE = "Failure # "  # Ray writes this before its message about each death of a training


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """A source of jobs, with callbacks for their progress."""

    next: Callable[[], Job | None]
    """Returns the next job, or None when there is none left."""
    epoch: Callable[[Job, int, float, float | None], None]
    """Called when a job finished an epoch, with its number, its loss, and its mIoU (0..1) or None if it was not scored.
    """
    end: Callable[[Job, int, str], None]
    """Called when a job ended, with its last epoch and why it failed; an empty reason if it did not."""
    waits: Callable[[], bool] = lambda: False
    """Returns whether the next job depends on one under way."""


def run_jobs(search: Search, jobs: Jobs) -> None:
    """Train jobs until there are none left.

    Raises: HaltedError when one failed because of its surroundings; that job is not marked as failed.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    feed = Feed(search, jobs)
    with scratch_folder() as scratch:
        tune.run(
            TrialRunner,
            search_alg=feed,
            scheduler=Scheduler(feed),
            stop=Halt(feed),
            callbacks=[StartCallback(feed), *loggers_of(search)],
            num_samples=-1,
            resources_per_trial={"cpu": search.workers.threads, "gpu": search.workers.gpu_share},
            max_concurrent_trials=search.workers.concurrent,
            storage_path=str(scratch),
            name="tune",
            trial_dirname_creator=_short_name,
            trial_name_creator=name_of,
            reuse_actors=True,
            max_failures=MOST_RESTARTS,
            raise_on_failed_trial=False,
            verbose=0,
        )
    if feed.broken is not None:
        raise feed.broken


def configured(job: Job, run: RunFolder, workers: Workers) -> dict[str, Any]:
    """The configuration that a worker receives for a job; its paths are relative to the run's folder."""
    root = run.root
    return {
        "run": str(root.resolve()),
        "trial": str(run.trial_path(job.trial).relative_to(root)),
        "name": job.trial.name,
        "phase": job.phase,
        "folder": str(job.folder(run).relative_to(root)),
        "variant": strict.dump(job.variant),
        "epochs": job.epochs(run.study()),
        "teacher": "" if job.teacher is None else str(run.trial_path(job.teacher).relative_to(root)),
        "device": workers.device,
        "threads": workers.threads,
        "per_gpu": workers.per_gpu,
        "leaves_core_of": workers.leaves_core_of,
    }


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


class Feed(Searcher):
    """Hands jobs to Ray as configurations, and Ray's results to the jobs' callbacks. The run's folder is its state.

    Ray would take an exception raised here for the failure of a training. It is kept instead, and raised when Ray has
    ended.
    """

    def __init__(self, search: Search, jobs: Jobs) -> None:
        super().__init__()  # without a metric, which Ray would demand of every epoch
        self._run = search.run
        self._workers = search.workers
        self._work = jobs
        self._jobs: dict[str, Job] = {}
        self._epochs: dict[str, int] = {}  # last epoch passed on, by trial
        self._failed: dict[str, str] = {}
        self._deaths: dict[str, str] = {}  # Ray's message about the last death of a training's process, by trial
        self._under_way = UnderWay(search.run, search.console.under_way)
        self._waiting = Waiting(search.workers, search.console.step)
        self.broken: Exception | None = None
        """The error that ends all training; None while there is none."""

    def suggest(self, trial_id: str) -> Any:
        if self.broken is not None:
            return Searcher.FINISHED
        with self._kept():
            if self._work.waits():
                return None  # Ray calls this again
            job = self._work.next()
            if job is not None:
                self._jobs[trial_id] = job
                self._under_way.heard(job)
                self._waiting.asked()
                return configured(job, self._run, self._workers)
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self._kept():
            if result["fault"]:
                raise RuntimeError(result["fault"])  # a traceback, with which the program ends
            if result["advice"]:
                self._halt(self._jobs[trial_id], Cause(words=result["failed"], advice=result["advice"]))
            elif result["failed"]:
                self._failed[trial_id] = result["failed"]
            else:
                self._epochs[trial_id] = result["epoch"]
                self._work.epoch(self._jobs[trial_id], result["epoch"], result["loss"], result.get("miou"))
                self._under_way.heard(self._jobs[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        last = self._epochs.get(trial_id, 0)
        if result is not None and not error and (result.get("failed") or result.get("epoch", last) != last):
            self.on_trial_result(trial_id, result)  # Ray gives the last result of a trial here only
        if self.broken is not None:
            return  # an unfinished training goes on when the run is resumed
        with self._kept():
            job = self._jobs.pop(trial_id)
            if error:
                cause = self._cause_of_death(trial_id, job)
                if cause.advice:
                    self._halt(job, cause)
                self._failed[trial_id] = cause.words
            self._work.end(job, self._epochs.pop(trial_id, 0), self._failed.pop(trial_id, ""))

    def begins(self) -> None:
        """A training begins."""
        self._waiting.begins()

    def say_where_it_is(self) -> None:
        """Print the progress of the trainings under way, and what they wait for; end all if that takes too long."""
        if self.broken is None:
            self._under_way.look(self._jobs.values())
        with self._kept():
            if too_long := self._waiting.look():
                raise HaltedError(f"{too_long}; finished work is kept: {REJOIN}, then go on with: {self._run.resume}")

    def on_death(self, trial_id: str, ray_message: str) -> int:
        """A training's process died; returns how often it may die. Deaths by a lost node do not count."""
        self._deaths[trial_id] = ray_message
        self._under_way.heard(self._jobs[trial_id])  # the progress that it wrote no longer holds
        return self._most_restarts()

    def _most_restarts(self) -> int:
        return MOST_RESTARTS + self._waiting.lost_nodes

    def _cause_of_death(self, trial_id: str, job: Job) -> Cause:
        file = job.folder(self._run) / LAST_WORDS
        last_words = file.read_text("utf-8", errors="replace") if file.is_file() else ""
        return cause_of_death(self._deaths.pop(trial_id, ""), last_words, self._most_restarts() + 1)

    def _halt(self, job: Job, cause: Cause) -> NoReturn:
        raise HaltedError(
            f"{job.trial.name} cannot be trained now: {cause.words}. The candidate is not marked as failed, and "
            f"finished work is kept: {cause.advice}, then go on with: {self._run.resume}"
        )

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.broken = self.broken or error

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a run is resumed from its folder, not from Ray's copy of it")


class Scheduler(FIFOScheduler):
    """Passes Ray's messages about dead trainings to the feed, and stops all trainings once the feed is broken."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._feed = feed

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop or go on."""
        return TrialScheduler.CONTINUE if self._feed.broken is None else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Pass on Ray's message about the last death, and allow one more death for each lost node."""
        file = Path(trial.error_file or "")
        messages = file.read_text("utf-8", errors="replace") if file.is_file() else ""
        trial.max_failures = self._feed.on_death(trial.trial_id, messages.rpartition(FAILURE)[2])


class StartCallback(Callback):
    """Notifies the feed when Ray starts a training."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray has found resources for it."""
        self._feed.begins()


class Halt(Stopper):
    """Ends all trainings once the feed is broken."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray stores this in its own record, which is never read: a run is resumed from its folder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether to stop. Ray calls this again and again."""
        self._feed.say_where_it_is()
        return self._feed.broken is not None
