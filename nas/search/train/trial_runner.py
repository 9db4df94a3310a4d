"""Trains in a worker process of Ray: the counterpart of `nas.search.train.executor`."""

from __future__ import annotations

import contextlib
import faulthandler
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data import load
from nas.host.room import hold_to_share
from nas.runs.epochs import commit_epoch, go_on, held_mode
from nas.runs.events import event_files
from nas.runs.folder import RunFolder
from nas.runs.trial import Phase, read_progress
from nas.runs.trial_network import trained_network
from nas.search.cluster.configured_ray import tune
from nas.search.train.causes import Cause, cause_of
from nas.search.train.handover import pretrained_weights, save_weights_of, starting_weights
from nas.search.train.job import recipe_of
from nas.search.train.under_way import kept_in
from nas.storage.ownership import owned
from nas.training import Variant
from space import strict

if TYPE_CHECKING:
    from nas.training.trainer import Trainer

PATIENCE_SECONDS = 60.0  # to wait for a process of an earlier search that still trains the same job to end
LAST_WORDS = ".last.words.tmp"
NO_FAILURE = Cause(words="")


class TrialRunner(tune.Trainable):
    """Trains one job, an epoch per step, in a worker process that serves one job after the other.

    A failure is returned as a result: if it were raised, Ray would start the training again and lose the exception.
    """

    def setup(self, config: dict[str, Any]) -> None:
        self._job = contextlib.ExitStack()
        self._broken: Cause | None = None
        self._trainer: Trainer | None = None
        # Nothing is begun yet: while a process loads, others may do the job that Ray has set it up for, and then Ray
        # ends the process without notice.
        self._waiting: dict[str, Any] | None = config

    def _begin(self, config: dict[str, Any]) -> None:
        from nas.latency.machine import lane
        from nas.training.trainer import Trainer

        run = RunFolder.open(Path(config["run"]))
        study = run.study()
        trial = run.read_trial(run.root / config["trial"])
        phase: Phase = config["phase"]
        variant = strict.parse(config["variant"], Variant, "a job")
        architecture = variant.trains(trial.architecture)
        teacher = run.read_trial(run.root / config["teacher"]) if config["teacher"] else None
        self._folder, self._trial = run.root / config["folder"], trial
        self._job.enter_context(owned(self._folder, patience_seconds=PATIENCE_SECONDS))
        self._job.enter_context(_last_words(self._folder / LAST_WORDS))
        self._progress = self._job.enter_context(kept_in(self._folder))
        # A generated data set may have to be made here, on another node.
        dataset = load(study.data, guard=lane.shared_on("cpu"), progress=self._progress)
        device = config["device"]
        recipe = recipe_of(study, phase, variant, config["epochs"])
        hold_to_share(device, config["per_gpu"])
        guard = lane.shared_on(device, timed_on=config["leaves_core_of"])

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
                compute_mode=mode,
                guard=guard,
                count=self._progress.count,
            )

        with self._progress.over("begins", 0):  # the probe and the counting of classes may wait for timings
            mode = held_mode(
                self._folder,
                architecture,
                dataset,
                recipe,
                device=device,
                threads=config["threads"],
                guard=guard,
            )
            self._trainer = go_on(trainer, self._folder)
        if self._trainer.finished:  # it runs again because its weights are damaged
            save_weights_of(self._trainer, self._folder, self._trial)
        else:
            self._write_events = self._job.enter_context(event_files(self._folder, self._trainer.epoch))

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
        return _result(0, done=True, cause=self._broken)

    def _train(self) -> dict[str, Any]:
        trainer = self._trainer
        assert trainer is not None, "the training has begun"
        if not trainer.finished:
            what = f"epoch {trainer.epoch + 1}/{trainer.recipe.epochs}"
            with self._progress.over(what, trainer.images_to_come, waits=trainer.waits):
                trainer.run_epoch()
            save_weights_of(trainer, self._folder, self._trial)  # before the epoch counts
            commit_epoch(self._folder, trainer)
            self._write_events(trainer.history[-1], trainer.learning_rate)
        last = read_progress(self._folder).history[-1]
        if trainer.finished:
            self.cleanup()
        result = {"loss": last.loss, "seconds": last.seconds, **_result(last.epoch, done=trainer.finished)}
        if last.scores is not None:  # a logger would take a score that is none for a point of its curve
            result |= {"miou": last.scores.miou, "pixel_accuracy": last.scores.pixel_accuracy}
        return result

    def cleanup(self) -> None:
        self._trainer = None  # frees its memory for the next training
        self._job.close()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}  # the checkpoint is in the run's folder

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        return  # the training goes on from the run's folder instead


def _result(epoch: int, *, done: bool, cause: Cause = NO_FAILURE) -> dict[str, Any]:
    failure = {"failed": cause.words, "advice": cause.advice, "fault": cause.fault}
    return {"epoch": epoch, "done": done, **failure}


@contextlib.contextmanager
def _last_words(file: Path) -> Iterator[None]:
    """Have Python write the reason into a file if this process crashes."""
    with file.open("w", encoding="utf-8") as opened:
        faulthandler.enable(opened, all_threads=False)
        try:
            yield
        finally:
            faulthandler.enable(all_threads=False)
            file.unlink(missing_ok=True)
