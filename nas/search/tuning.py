"""Ray Tune as the executor of trainings.

Ray runs what it is fed, on one machine or a cluster. It keeps no state of ours: every trial writes its epochs and
checkpoints into the run's folder (on a cluster, a folder that all nodes see), and an interrupted run is fed again from
there.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from nas.data import load
from nas.host.cores import usable_cores
from nas.host.room import hold_to_share
from nas.runs.epochs import commit_epoch, go_on, held_form
from nas.runs.folder import RunFolder
from nas.runs.trial import Phase, read_progress
from nas.search.causes import Cause, cause_of, cause_of_death
from nas.search.configured_ray import Callback, FIFOScheduler, Searcher, Stopper, TrialScheduler, tune
from nas.search.cutting import trained_network
from nas.search.handing_over import pretrained_weights, save_weights_of, starting_weights
from nas.search.job import Job, recipe_of
from nas.search.search import Search, Workers
from nas.storage.ownership import owned
from nas.storage.scratch import scratch_folder
from nas.training import Variant
from space import strict
from space.errors import HaltedError

if TYPE_CHECKING:
    from nas.training.trainer import Trainer

MOST_RESTARTS = 3  # of one training whose process died; each goes on from its checkpoint
WAIT_SECONDS = 30.0  # for the first training to begin, before it is said
PATIENCE_SECONDS = 60.0  # for a process of an earlier driver to end that trains the same
LAST_WORDS = ".last.words.tmp"
NOTHING = Cause(words="")


@dataclass(frozen=True, kw_only=True)
class Jobs:
    """What is trained next, and who is told."""

    next: Callable[[], Job | None]
    """The next job; None when there is none left."""
    epoch: Callable[[Job, int, float], None]
    """A job finished an epoch: which one, with which mIoU (0..1)."""
    end: Callable[[Job, int, str], None]
    """A job ended: after which epoch, and why it broke, or empty."""
    waits: Callable[[], bool] = lambda: False
    """Whether the next job is known only when one under way has ended."""


def run_jobs(search: Search, jobs: Jobs) -> None:
    """Train jobs until there are none left.

    Raises: HaltedError when one broke for a reason of its surroundings; it has no verdict then, and is not finished.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    feed = Feed(search, jobs)
    with scratch_folder() as scratch:
        tune.run(
            TrialRunner,
            metric="miou",
            mode="max",
            search_alg=feed,
            scheduler=Scheduler(feed),
            stop=Halt(feed),
            callbacks=[Beginning(feed)],
            num_samples=-1,
            resources_per_trial={"cpu": search.workers.threads, "gpu": search.workers.gpu_share},
            max_concurrent_trials=search.workers.concurrent,
            storage_path=str(scratch),
            name="tune",
            trial_dirname_creator=_short_name,
            reuse_actors=True,
            max_failures=MOST_RESTARTS,
            raise_on_failed_trial=False,
            verbose=0,
        )
    if feed.broken is not None:
        raise feed.broken


def configured(job: Job, run: RunFolder, workers: Workers) -> dict[str, Any]:
    """A job as a worker is told it: its paths count from the run's folder."""
    root = run.root
    return {
        "run": str(root.resolve()),
        "trial": str(run.trial_path(job.trial).relative_to(root)),
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
    """Hands our jobs to Ray as configurations, and its results to us. Its state is the run's folder.

    Ray takes what is raised here for the failure of a training. So it is kept, and raised when Ray has ended.
    """

    def __init__(self, search: Search, jobs: Jobs) -> None:
        super().__init__(metric="miou", mode="max")
        self._run = search.run
        self._workers = search.workers
        self._work = jobs
        self._jobs: dict[str, Job] = {}
        self._epochs: dict[str, int] = {}  # that have been told of
        self._failed: dict[str, str] = {}
        self._told: dict[str, str] = {}  # by Ray of trainings whose processes died
        self._say = search.console.step
        self._waits_since: float | None = None  # for the first training to begin
        self._began = False
        self.broken: Exception | None = None
        """Why nothing more is trained."""

    def suggest(self, trial_id: str) -> Any:
        if self.broken is not None:
            return Searcher.FINISHED
        with self._kept():
            if self._work.waits():
                return None  # Ray asks again
            job = self._work.next()
            if job is not None:
                self._jobs[trial_id] = job
                self._waits_since = self._waits_since or time.monotonic()
                return configured(job, self._run, self._workers)
        return Searcher.FINISHED

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        with self._kept():
            if result["fault"]:
                raise RuntimeError(result["fault"])  # the traceback, with which the program ends
            if result["advice"]:
                self._halt(self._jobs[trial_id], Cause(words=result["failed"], advice=result["advice"]))
            elif result["failed"]:
                self._failed[trial_id] = result["failed"]
            else:
                self._epochs[trial_id] = result["epoch"]
                self._work.epoch(self._jobs[trial_id], result["epoch"], result["miou"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        told = self._epochs.get(trial_id, 0)
        if result is not None and not error and (result.get("failed") or result.get("epoch", told) != told):
            self.on_trial_result(trial_id, result)  # Ray gives the last result of a trial here only
        if self.broken is not None:
            return  # what is not finished is trained when the run goes on
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
        self._began = True

    def say_if_waiting(self) -> None:
        """Say what is waited for when no training has begun for long, once."""
        if self._began or self._waits_since is None or time.monotonic() < self._waits_since + WAIT_SECONDS:
            return
        self._began = True
        whole = "a GPU" if self._workers.per_gpu == 1 else f"1/{self._workers.per_gpu} of a GPU"
        gpu = f" and {whole}" if self._workers.device == "cuda" else ""
        count = self._workers.threads
        processors = f"{count} processor{'' if count == 1 else 's'}{gpu}"
        if self._workers.joined:
            self._say(f"wait    for {processors} of Ray's to be free; see `ray status`")
            return
        here = f"there are {usable_cores()} here, with a load of {os.getloadavg()[0]:.1f}"
        self._say(f"wait    for a training to begin on {processors}: {here}; it begins sooner where less else runs")

    def on_death(self, trial_id: str, told: str) -> None:
        """A training's process died for the last time; `told` is what Ray says about it."""
        self._told[trial_id] = told

    def _cause_of_death(self, trial_id: str, job: Job) -> Cause:
        file = job.folder(self._run) / LAST_WORDS
        last_words = file.read_text("utf-8", errors="replace") if file.is_file() else ""
        return cause_of_death(self._told.pop(trial_id, ""), last_words, MOST_RESTARTS + 1)

    def _halt(self, job: Job, cause: Cause) -> NoReturn:
        raise HaltedError(
            f"{job.trial.name} cannot be trained now: {cause.words}. That is no verdict on it, and nothing finished is "
            f"lost: {cause.advice}, then go on with: nas search --resume {self._run.root}"
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
        raise AssertionError("a run is continued from its folder, not from Ray's copy of it")


class Scheduler(FIFOScheduler):
    """Tells the feed what Ray says of a training that died, and stops all once the feed is broken."""

    def __init__(self, feed: Feed) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._feed = feed

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Stop or go on."""
        return TrialScheduler.CONTINUE if self._feed.broken is None else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Pass on what Ray wrote about it."""
        file = Path(trial.error_file or "")
        self._feed.on_death(trial.trial_id, file.read_text("utf-8", errors="replace") if file.is_file() else "")


class Beginning(Callback):
    """Tells the feed that a training begins."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray has found room for it."""
        self._feed.begins()


class Halt(Stopper):
    """Ends all trainings once the feed is broken."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Ray's own record of the trainings, which nobody reads: a run is continued from its folder

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Whether to. Ray asks again and again."""
        self._feed.say_if_waiting()
        return self._feed.broken is not None


class TrialRunner(tune.Trainable):
    """Trains one job, an epoch per step, in a worker process that serves one job after the other.

    What breaks is told as a result: Ray would try all of it again, and forget what was raised.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._job = contextlib.ExitStack()
        self._broken: Cause | None = None
        self._trainer: Trainer | None = None
        # Nothing is begun yet: Ray sets up processes for jobs that others have done by the time that these have loaded,
        # and ends them without a word.
        self._waiting: dict[str, Any] | None = config

    def _begin(self, config: dict[str, Any]) -> None:
        from nas.latency.machine import gpu, lane
        from nas.latency.machine.device import leave_core_of
        from nas.training.trainer import Trainer

        run = RunFolder.open(Path(config["run"]))
        study = run.study()
        trial = run.read_trial(run.root / config["trial"])
        phase: Phase = config["phase"]
        variant = strict.parse(config["variant"], Variant, "a job")
        architecture = variant.trains(trial.architecture)
        teacher = run.read_trial(run.root / config["teacher"]) if config["teacher"] else None
        self._folder, self._architecture = run.root / config["folder"], trial.architecture
        self._job.enter_context(owned(self._folder, patience_seconds=PATIENCE_SECONDS))
        self._job.enter_context(_last_words(self._folder / LAST_WORDS))
        dataset, device = load(study.data), config["device"]
        recipe = recipe_of(study, phase, variant, config["epochs"])
        hold_to_share(device, config["per_gpu"])
        if config["leaves_core_of"]:
            leave_core_of(config["leaves_core_of"])
        guard = functools.partial(lane.training_step, gpu.name_of(device))
        form = held_form(
            self._folder,
            architecture,
            dataset,
            recipe,
            device=device,
            threads=config["threads"],
            guard=guard,
        )

        def trainer() -> Trainer:
            return Trainer(
                architecture,
                dataset,
                recipe,
                device=device,
                threads=config["threads"],
                weights=starting_weights(run, trial, phase),
                init=pretrained_weights(run, study, phase),
                teacher=None if teacher is None else trained_network(run, teacher, dataset.num_classes),
                rungs=[rung.epochs for rung in trial.rungs] if phase == "search" else (),
                form=form,
                guard=guard,
            )

        self._trainer = go_on(trainer, self._folder)
        if self._trainer.finished:  # its weights are damaged
            save_weights_of(self._trainer, self._folder, self._architecture)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.cleanup()
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        if self._broken is None:
            try:
                if self._waiting is not None:
                    waiting, self._waiting = self._waiting, None
                    self._begin(waiting)
                return self._train()
            except Exception as error:
                self._broken = cause_of(error)
        self.cleanup()
        return _result(0, 0.0, done=True, cause=self._broken)

    def _train(self) -> dict[str, Any]:
        trainer = self._trainer
        assert trainer is not None, "nothing broke at the beginning"
        if not trainer.finished:
            trainer.run_epoch()
            save_weights_of(trainer, self._folder, self._architecture)  # before the epoch counts
            commit_epoch(self._folder, trainer)
        last = read_progress(self._folder).history[-1]
        if trainer.finished:
            self.cleanup()
        return _result(last.epoch, last.scores.miou, done=trainer.finished)

    def cleanup(self) -> None:
        self._trainer = None  # the next training needs its memory
        self._job.close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # the run's folder has it

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        return  # `setup` went on from the run's folder


def _result(epoch: int, miou: float, *, done: bool, cause: Cause = NOTHING) -> dict[str, Any]:
    told = {"failed": cause.words, "advice": cause.advice, "fault": cause.fault}
    return {"epoch": epoch, "miou": miou, "done": done, **told}


@contextlib.contextmanager
def _last_words(file: Path) -> Iterator[None]:
    """Have Python write into a file why this process crashes, if it does."""
    with file.open("w", encoding="utf-8") as opened:
        faulthandler.enable(opened, all_threads=False)
        try:
            yield
        finally:
            faulthandler.enable(all_threads=False)
            file.unlink(missing_ok=True)
