"""The training process of `nas train`. With several processes, only the first writes files and prints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.host.words import counted
from nas.runs.labelling import ARCHITECTURE, WEIGHTS, Labelling, metadata
from nas.runs.trained import CHECKPOINT, SCORES, ScoreCard

if TYPE_CHECKING:
    from pathlib import Path

    from nas.data import Dataset
    from nas.data.share import Share
    from nas.runs.events import Tell
    from nas.terminal import ProgressLine
    from nas.training.pretrained import Taken
    from nas.training.recipe import Recipe
    from nas.training.trainer import Trainer
    from space.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class TrainingSpec:
    """What every process of a training needs to know."""

    name: str
    """The network, as the command line named it."""
    architecture: Architecture
    dataset: Dataset
    recipe: Recipe
    recipe_name: str
    out: Path
    device: str
    """`cuda` where each process has a GPU of its own."""
    threads: int
    """Threads of each process."""
    from_tensors: bool
    """Whether `out` holds pretrained weights to start from."""
    begun: bool
    """Whether there is a checkpoint to go on from."""


def work(training: TrainingSpec, share: Share) -> None:
    """Train as one of the processes that share the training; the first one writes and prints."""
    from dataclasses import replace
    from functools import partial

    from nas.latency.machine import lane
    from nas.runs.epochs import go_on, held_mode
    from nas.runs.events import event_files
    from nas.runs.initial_weights import kept_tensors
    from nas.terminal import ProgressLine
    from nas.training.together import meet
    from nas.training.trainer import Trainer
    from space import UserError

    # A process of a cluster sees no GPU but its own.
    sees_its_own = share.is_whole or training.device == "cpu" or bool(share.machines)
    device = training.device if sees_its_own else f"{training.device}:{share.rank}"
    guard = lane.shared_on(device if share.is_whole else "cpu")  # the first process enters it for all, and for all GPUs
    progress = ProgressLine()

    def trainer_of() -> Trainer:
        trainer = Trainer(
            training.architecture,
            training.dataset,
            training.recipe,
            device=device,
            threads=training.threads,
            init=kept_tensors(training.out) if training.from_tensors else None,
            compute_mode=mode,
            guard=guard,
            count=progress.count,
            share=share,
        )
        if trainer.taken is not None and not trainer.taken.layers:
            raise UserError(
                f"--init: expected weights of a network that begins like {training.name}, got {training.recipe.init}, "
                f"of which nothing fits: {trainer.taken.reason}"
            )
        return trainer

    if share.rank:
        meet(share)  # the first process finds the compute mode, and writes it where the others read it
    mode = held_mode(
        training.out,
        training.architecture,
        training.dataset,
        replace(training.recipe, batch_size=share.most_of(training.recipe.batch_size)),
        device=device,
        threads=training.threads,
        guard=guard,
        said=partial(print, flush=True),
    )
    if not share.rank:
        meet(share)
    trainer = go_on(trainer_of, training.out, share)
    if share.rank:
        while not trainer.finished:
            trainer.run_epoch()
        return
    if training.begun and not trainer.epoch:
        print(f"{training.out / CHECKPOINT} is damaged: the training begins anew")
    _introduce(trainer, training, share)
    with event_files(training.out, trainer.epoch) as tell:
        _train(trainer, training.out, progress, tell)
    _finish(trainer, training.out)


def _introduce(trainer: Trainer, training: TrainingSpec, share: Share) -> None:
    from nas.training.optimisation import missing_parts
    from space import parameters

    dataset, recipe = trainer.dataset, trainer.recipe
    height, width = dataset.size
    where = str(trainer.device) if share.is_whole else f"{training.device}, in {share.count} processes"
    print(
        f"{training.name}: {parameters(trainer.architecture, dataset.num_classes):,} parameters, "
        f"{dataset.num_classes} classes of {dataset.name}, {len(dataset.train)} training and "
        f"{len(dataset.validation)} validation images at {height}x{width}, on {where}"
    )
    if trainer.taken is not None and not trainer.epoch:
        print(_taken_words(trainer, trainer.taken))
    if recipe.probe:
        print(f"computes in {trainer.compute_mode}: the fastest mode that was tried here")
    going = f"going on after epoch {trainer.epoch}" if trainer.epoch else "after an interruption go on with --resume"
    epochs = f"{counted(recipe.epochs, 'epoch')} in batches of {recipe.batch_size}"
    if trainer.encoder_epochs and recipe.encoder is not None:
        first, rest = trainer.encoder_epochs, recipe.epochs - trainer.encoder_epochs
        epochs = (
            f"{counted(first, 'epoch')} of the encoder in batches of {recipe.encoder.batch_size}, {rest} of the whole "
            f"network in batches of {recipe.batch_size}"
        )
    print(f"recipe {training.recipe_name}: {epochs}; {going}", flush=True)
    if missing := missing_parts(trainer.network, recipe):
        print(f"note: rate_shares: {training.name} has no {', '.join(missing)}", flush=True)


def _taken_words(trainer: Trainer, taken: Taken) -> str:
    """Which layers took their weights from a file, and which did not."""
    form = "several paths" if trainer.is_reparameterized else "the one convolution that runs"
    trains = f"; re-parameterised convolutions train as {form}" if trainer.architecture.is_reparameterized else ""
    lines = [f"weights of {counted(len(taken.layers), 'layer')} from {trainer.recipe.init}{trains}"]
    if taken.fresh:
        lines.append(f"  start at random: {', '.join(taken.fresh)}")
    if taken.unused:
        lines.append(f"  not used: {', '.join(taken.unused)}")
    if taken.reason:
        lines.append(f"  first mismatch: {taken.reason}")
    return "\n".join(lines)


def _train(trainer: Trainer, out: Path, progress: ProgressLine, tell: Tell) -> None:
    from nas.runs.epochs import commit_epoch
    from nas.terminal import duration, percent, waiting, waiting_advice

    width = len(str(trainer.recipe.epochs))
    seconds: list[float] = []
    advised = False
    while not trainer.finished:
        what = f"epoch {trainer.epoch + 1}/{trainer.recipe.epochs}"
        with progress.over(what, trainer.images_to_come, waits=trainer.waits):
            report = trainer.run_epoch()
        seconds.append(report.seconds)
        tell(report, trainer.learning_rate)
        commit_epoch(out, trainer)
        stage = f"  encoder {report.epoch}/{trainer.encoder_epochs}" if report.encoder else ""
        left = sum(seconds) / len(seconds) * (report.epochs - report.epoch)
        waits = waiting(report.waited_for_data, report.waited_for_lane)
        ending = f"{waits and ', '}{waits}{'' if trainer.finished else f', {duration(left)} left'}"
        score = "" if report.scores is None else f"mIoU {percent(report.scores.miou):>5} %"
        print(
            f"epoch {report.epoch:{width}}/{report.epochs}{stage}  loss {report.loss:.4f}  {score:12}  "
            f"{report.seconds:.1f} s{ending}",
            flush=True,
        )
        advice = waiting_advice(report.waited_for_data, report.waited_for_lane)
        if advice and not advised:
            print(f"note: {advice}", flush=True)
            advised = True


def _finish(trainer: Trainer, out: Path) -> None:
    from nas.runs.trial import read_progress
    from nas.storage.files import write_text
    from nas.terminal import answering, class_table
    from nas.training.weights import save_weights
    from space import strict

    architecture, dataset = trainer.architecture, trainer.dataset
    scores = read_progress(out).history[-1].scores
    assert scores is not None, "the last epoch is scored"
    write_text(out / ARCHITECTURE, architecture.to_yaml())
    write_text(out / SCORES, strict.dump(ScoreCard.of(architecture, dataset, trainer.recipe, scores)))
    save_weights(out / WEIGHTS, trainer.weights(), metadata(architecture, Labelling.of(dataset)))
    with answering():
        print(f"\n{class_table(dataset.classes, scores)}\n\n{out}: {ARCHITECTURE} {WEIGHTS} {SCORES} {CHECKPOINT}")
