"""Ray Tune as the executor of trainings.

Ray runs what it is fed, on one machine or a cluster, and stops weak trials. It keeps no state of ours: every trial
writes its epochs and checkpoints into the run's folder (on a cluster, a folder that all nodes see), and an
interrupted run is fed again from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.data import load
from nas.runs.folder import RunFolder
from nas.runs.labelling import WEIGHTS, Labelling, metadata
from nas.runs.trained import CHECKPOINT
from nas.runs.trial import Epoch, Phase, Trial, append_epoch, read_progress
from nas.search.configured_ray import ASHAScheduler, FIFOScheduler, Searcher, TrialScheduler, tune
from nas.search.cutting import parent_network
from nas.search.job import Job, recipe_of
from nas.search.search import Search
from nas.storage.scratch import scratch_folder
from space.errors import UserError

MOST_RESTARTS = 3  # of one training whose process died; each goes on from its checkpoint


@dataclass(frozen=True, kw_only=True)
class Events:
    """What the caller wants to hear."""

    epoch: Callable[[Job, int, float], None]
    """A job finished an epoch: which one, with which mIoU (0..1)."""
    end: Callable[[Job, int, float | None, str], None]
    """A job ended: after which epoch, with which mIoU (None before the first), and why it broke, or empty."""


def run_jobs(
    search: Search, next_job: Callable[[], Job | None], events: Events, *, epochs: int, stop_weak: bool
) -> None:
    """Train the jobs of `epochs` epochs that `next_job` gives until it gives None; with `stop_weak`, by asynchronous
    halving: Li et al., "A System for Massively Parallel Hyperparameter Tuning", 2020.
    """
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    scheduler: TrialScheduler = FIFOScheduler()  # type: ignore[no-untyped-call]
    if stop_weak and epochs > 1:
        scheduler = ASHAScheduler(time_attr="epoch", grace_period=max(1, epochs // 4), max_t=epochs, reduction_factor=2)
    with scratch_folder() as scratch:
        tune.run(
            TrialRunner,
            metric="miou",
            mode="max",
            search_alg=Feed(search, next_job, events),
            scheduler=scheduler,
            num_samples=-1,
            resources_per_trial={"cpu": search.workers.threads, "gpu": int(search.workers.device == "cuda")},
            max_concurrent_trials=search.workers.concurrent,
            storage_path=str(scratch),
            name="tune",
            trial_dirname_creator=_short_name,
            reuse_actors=True,
            max_failures=MOST_RESTARTS,
            raise_on_failed_trial=False,
            verbose=0,
        )


def _short_name(trial: Any) -> str:
    return str(trial.trial_id)


class Feed(Searcher):
    """Hands our jobs to Ray as configurations, and its results to us. Its state is the run's folder."""

    def __init__(self, search: Search, next_job: Callable[[], Job | None], events: Events) -> None:
        super().__init__(metric="miou", mode="max")
        self._run = search.run
        self._workers = search.workers
        self._next_job = next_job
        self._events = events
        self._jobs: dict[str, Job] = {}
        self._last: dict[str, tuple[int, float]] = {}
        self._failed: dict[str, str] = {}

    def suggest(self, trial_id: str) -> Any:
        job = self._next_job()
        if job is None:
            return Searcher.FINISHED
        self._jobs[trial_id] = job
        return {
            "run": str(self._run.root.resolve()),
            "trial": str(self._run.trial_path(job.trial).relative_to(self._run.root)),
            "phase": job.phase,
            "device": self._workers.device,
            "threads": self._workers.threads,
        }

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if result["failed"]:
            self._failed[trial_id] = result["failed"]
            return
        self._last[trial_id] = (result["epoch"], result["miou"])
        self._events.epoch(self._jobs[trial_id], *self._last[trial_id])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        told = self._last.get(trial_id, (0, None))[0]
        if result is not None and not error and (result.get("failed") or result.get("epoch", told) != told):
            self.on_trial_result(trial_id, result)  # Ray gives the last result of a trial here only
        epoch, miou = self._last.pop(trial_id, (0, None))
        failed = self._failed.pop(trial_id, f"its process died {MOST_RESTARTS + 1} times" if error else "")
        self._events.end(self._jobs.pop(trial_id), epoch, miou, failed)

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise AssertionError("a run is continued from its folder, not from Ray's copy of it")


class TrialRunner(tune.Trainable):
    """Trains one job, an epoch per step, in a worker process that serves one job after the other."""

    def setup(self, config: dict[str, Any]) -> None:
        from nas.latency.machine import lane
        from nas.training.trainer import Trainer

        run = RunFolder.open(Path(config["run"]))
        study = run.study()
        trial = run.read_trial(run.root / config["trial"])
        self._folder = run.phase_path(trial, config["phase"])
        self._checkpoint = self._folder / CHECKPOINT
        dataset = load(study.data)
        self._trainer = Trainer(
            trial.architecture,
            dataset,
            recipe_of(study, config["phase"]),
            device=config["device"],
            threads=config["threads"],
            weights=_starting_weights(run, trial, config["phase"]),
            teacher=parent_network(run, trial, dataset.num_classes) if trial.origin == "pruned" else None,
            guard=lane.training_step,
        )
        if self._checkpoint.is_file():
            self._trainer.restore(self._checkpoint)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.setup(new_config)
        return True

    def step(self) -> dict[str, Any]:
        from nas.training.weights import save_weights

        if not self._trainer.finished:
            try:
                report = self._trainer.run_epoch()
            except UserError as error:  # trying again would end the same way
                return {"epoch": self._trainer.epoch, "miou": 0.0, "failed": str(error), "done": True}
            append_epoch(
                self._folder,
                Epoch(
                    epoch=report.epoch,
                    epochs=report.epochs,
                    loss=report.loss,
                    seconds=report.seconds,
                    scores=report.scores,
                ),
            )
            # Weights before the checkpoint: a training that counts as finished has them.
            words = metadata(self._trainer.architecture, Labelling.of(self._trainer.dataset))
            save_weights(self._folder / WEIGHTS, self._trainer.weights(), words)
            self._trainer.save(self._checkpoint)
        last = read_progress(self._folder).history[-1]
        return {"epoch": last.epoch, "miou": last.scores.miou, "failed": "", "done": self._trainer.finished}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # the run's folder has it

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        return  # `setup` went on from the run's folder


def _starting_weights(run: RunFolder, trial: Trial, phase: Phase) -> dict[str, Any] | None:
    if phase == "search":
        return None
    from nas.training.weights import load_weights

    return load_weights(run.phase_path(trial, "search") / WEIGHTS)
