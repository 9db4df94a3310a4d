"""`nas train`: one network from images to weights, with a checkpoint after every epoch."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import TYPE_CHECKING

from nas.commands import common, output
from nas.runs.certificate import CERTIFICATE
from nas.runs.labelling import ARCHITECTURE, WEIGHTS, Labelling, metadata
from nas.runs.trained import CHECKPOINT, SCORES, ScoreCard

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nas.data import Dataset, DataSpec
    from nas.terminal import Progress
    from nas.training.pretrained import Started
    from nas.training.recipe import Recipe
    from nas.training.scores import EpochReport
    from nas.training.trainer import Trainer
    from space.architecture import Architecture

    Tell = Callable[[EpochReport, float], None]
    """Is told the report of an epoch and its last learning rate."""

FEWEST_CLASSES = 2  # how many there are is not known before the data are
EPILOG = """\
examples:
  nas train erfnet --out runs/erfnet
  nas train fplnet --data camvid:~/camvid --input 360x480 --recipe fplnet --out runs/fplnet
  nas train fplnet --data camvid:~/camvid --input 360x480 --recipe fplnet --out runs/fplnet --resume
  nas train swiftnet-rn18 --data cityscapes:~/cityscapes --input 1024x2048 --recipe swiftnet --init resnet18.pth"""
OTHERS = ("study.yaml", CERTIFICATE, "classes.txt", "classes.yaml")
"""Files of a search, a certified network and a data set."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's arguments."""
    parser.epilog = EPILOG
    common.add_architecture(parser)
    common.add_data(parser)
    parser.add_argument(
        "--recipe",
        default="quick",
        metavar="NAME",
        type=common.path,
        help="a recipe's name, such as ddrnet, a YAML file, or published: ARCH's own (default: quick)",
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        type=common.path,
        help="start from pretrained weights: torchvision's ResNet-18 or MobileNetV2, checkpoints of ERFNet or "
        "SwiftNet, weights.safetensors of a training",
    )
    parser.add_argument("--epochs", type=common.whole_number, metavar="N", help="instead of the recipe's")
    parser.add_argument("--batch-size", type=common.whole_number, metavar="N", help="instead of the recipe's")
    parser.add_argument("--seed", type=common.whole_number, metavar="N", help="instead of the recipe's")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="find the fastest precision and memory layout by a few steps first; results may round differently",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write loss, mIoU, rate and waiting of every epoch to OUT/events"
    )
    parser.add_argument("--out", metavar="DIR", type=common.path, help="where weights go (default: runs/train-ARCH)")
    parser.add_argument("--resume", action="store_true", help="go on from the last finished epoch in --out")
    common.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Train, or go on training, and write architecture, weights and scores."""
    from pathlib import Path

    from nas.runs.trained import load_architecture

    architecture = load_architecture(options.architecture)
    recipe = _recipe(options)
    out = Path(options.out or f"runs/train-{Path(options.architecture).stem}")
    common.say(f"training {options.architecture} in {out}")
    device = common.device(options)
    spec = common.data_spec(options.data, options.input)
    _require_room(architecture, spec.size, recipe, device)
    with output.folder(out):
        pass  # what cannot be made is refused before PyTorch is loaded

    from nas.runs.events import event_files
    from nas.storage.ownership import owned
    from nas.terminal import Progress

    with owned(out):  # what is in the folder is looked at by one process only
        _require_folder(out, resume=options.resume)
        recipe = _held_recipe(out, recipe, resume=options.resume)
        dataset = _held_data(out, spec, resume=options.resume)
        progress = Progress()
        trainer = _trainer(options, out, architecture, dataset, recipe, device, progress)
        _introduce(trainer, options)
        with event_files(out, trainer.epoch) if options.tensorboard else nullcontext(_untold) as tell:
            _train(trainer, out, progress, tell)
        _finish(trainer, out)


def _require_folder(out: Path, *, resume: bool) -> None:
    """Raises: UserError for a folder that holds something else than a training that goes on."""
    from space import UserError

    if not resume and ((out / CHECKPOINT).is_file() or (out / WEIGHTS).exists()):
        raise UserError(f"--out: {out} holds a training already; go on with --resume, or give another --out")
    for name in OTHERS:
        if (out / name).is_file():  # what says what a folder is would say something else beside a training
            raise UserError(f"--out: expected a folder for a training, got {out} with its {name}; give another")


def _held_recipe(out: Path, recipe: Recipe, *, resume: bool) -> Recipe:
    """The recipe with the weights that are kept in the folder of the training to begin with, if any.

    Raises: UserError when they cannot be read, or are others than it was begun with.
    """
    from dataclasses import replace

    from nas.runs.beginning import hold_to_beginning

    beginning = hold_to_beginning(out, recipe.init, begun=resume, trained=(out / CHECKPOINT).is_file())
    return replace(recipe, init=None if beginning is None else str(beginning))


def _held_data(out: Path, spec: DataSpec, *, resume: bool) -> Dataset:
    """The data, which were looked at; what is odd about them is printed.

    Raises: DataError for what cannot be trained on, UserError when they are others than the training was begun on.
    """
    from nas.data import load
    from nas.runs.data_seen import hold_to_data

    dataset = load(spec)
    findings = common.looked_at(dataset)
    common.say_notes(findings)
    hold_to_data(out, findings.fingerprint, root=spec.root, begun=resume and (out / CHECKPOINT).is_file())
    return dataset


def _trainer(
    options: argparse.Namespace,
    out: Path,
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    device: str,
    progress: Progress,
) -> Trainer:
    """The trainer, after the last epoch that is finished in the folder.

    Raises: UserError when a checkpoint is of another training, or nothing of what it is to begin with fits.
    """
    from nas.host.cores import usable_cores
    from nas.latency.machine import lane
    from nas.runs.beginning import kept_tensors
    from nas.runs.epochs import FORM, go_on, held_form
    from nas.training.trainer import Trainer
    from space import UserError

    threads, guard, kept = usable_cores(), lane.training_step, (out / CHECKPOINT).is_file()
    if not options.resume:
        (out / FORM).unlink(missing_ok=True)  # of another one that was ended in its first epoch
    form = held_form(out, architecture, dataset, recipe, device=device, threads=threads, guard=guard, said=common.say)

    def made() -> Trainer:
        init = None if recipe.init is None else kept_tensors(out)
        trainer = Trainer(
            architecture,
            dataset,
            recipe,
            device=device,
            threads=threads,
            init=init,
            form=form,
            guard=guard,
            count=progress.count,
        )
        if trainer.started is not None and not trainer.started.layers:
            raise UserError(
                f"--init: expected weights of a network that {options.architecture} begins like, got {recipe.init}, of "
                f"which nothing fits: {trainer.started.reason}"
            )
        return trainer

    trainer = go_on(made, out)
    if kept and not trainer.epoch:
        print(f"{out / CHECKPOINT} is damaged: the training begins anew")
    return trainer


def _require_room(architecture: Architecture, size: tuple[int, int], recipe: Recipe, device: str) -> None:
    """Refuse what cannot be trained here before pictures of that size are read or drawn.

    Raises: UserError with what would do.
    """
    from nas.host.memory import require_training

    crop = recipe.crop_of(size)
    require_training(architecture, crop, FEWEST_CLASSES, batch_size=recipe.batch_size, device=device)
    if recipe.encoder_epochs(architecture, recipe.epochs):
        batch_size = recipe.of_encoder().batch_size
        require_training(architecture, crop, FEWEST_CLASSES, batch_size=batch_size, device=device, encoder=True)


def _introduce(trainer: Trainer, options: argparse.Namespace) -> None:
    from space import parameters

    dataset, recipe = trainer.dataset, trainer.recipe
    height, width = dataset.size
    print(
        f"{options.architecture}: {parameters(trainer.architecture, dataset.num_classes):,} parameters, "
        f"{dataset.num_classes} classes of {dataset.name}, {len(dataset.train)} training and "
        f"{len(dataset.validation)} validation images at {height}x{width}, on {trainer.device}"
    )
    if trainer.started is not None and not trainer.epoch:
        print(_started(trainer.started, recipe.init or ""))
    if recipe.probe:
        print(f"computes in {trainer.form}: the fastest of what was tried here")
    going = f"going on after epoch {trainer.epoch}" if trainer.epoch else "after an interruption go on with --resume"
    epochs = f"{recipe.epochs} epochs in batches of {recipe.batch_size}"
    if trainer.encoder_epochs and recipe.encoder is not None:
        first, rest = trainer.encoder_epochs, recipe.epochs - trainer.encoder_epochs
        epochs = (
            f"{first} epochs of the encoder in batches of {recipe.encoder.batch_size}, {rest} of all in batches of "
            f"{recipe.batch_size}"
        )
    print(f"recipe {options.recipe}: {epochs}; {going}", flush=True)


def _started(started: Started, source: str) -> str:
    """What a network took from a file of weights, and what not."""
    lines = [f"weights of {len(started.layers)} layers from {source}"]
    if started.fresh:
        lines.append(f"  start at random: {', '.join(started.fresh)}")
    if started.unused:
        lines.append(f"  not used: {', '.join(started.unused)}")
    if started.reason:
        lines.append(f"  the first that did not fit: {started.reason}")
    return "\n".join(lines)


def _recipe(options: argparse.Namespace) -> Recipe:
    from dataclasses import replace

    from nas.training import load_recipe, recipe_of_network

    recipe = recipe_of_network(options.architecture) if options.recipe == "published" else load_recipe(options.recipe)
    given = {name: getattr(options, name) for name in ("epochs", "batch_size", "seed", "init")}
    recipe = replace(recipe, probe=recipe.probe or options.probe)
    if recipe.encoder is not None and options.batch_size is not None:
        recipe = replace(recipe, encoder=replace(recipe.encoder, batch_size=options.batch_size))
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})


def _untold(report: EpochReport, learning_rate: float) -> None:
    """Where nobody wants events."""


def _train(trainer: Trainer, out: Path, progress: Progress, tell: Tell) -> None:
    from nas.runs.epochs import commit_epoch
    from nas.terminal import duration, percent, waiting, waiting_advice

    width = len(str(trainer.recipe.epochs))
    seconds: list[float] = []
    advised = False
    while not trainer.finished:
        images = len(trainer.dataset.train) + len(trainer.dataset.validation)
        progress.begin(f"epoch {trainer.epoch + 1}/{trainer.recipe.epochs}", images)
        try:
            report = trainer.run_epoch()
        finally:
            progress.end()
        seconds.append(report.seconds)
        tell(report, trainer.learning_rate)
        commit_epoch(out, trainer)
        stage = f"  encoder {report.epoch}/{trainer.encoder_epochs}" if report.encoder else ""
        left = sum(seconds) / len(seconds) * (report.epochs - report.epoch)
        waits = waiting(report.waited_for_data, report.waited_for_lane)
        ending = f"{waits and ', '}{waits}{'' if trainer.finished else f', {duration(left)} left'}"
        print(
            f"epoch {report.epoch:{width}}/{report.epochs}{stage}  loss {report.loss:.4f}  "
            f"mIoU {percent(report.scores.miou):>5} %  {report.seconds:.1f} s{ending}",
            flush=True,
        )
        advice = waiting_advice(report.waited_for_data, report.waited_for_lane)
        if advice and not advised:
            print(f"note: {advice}", flush=True)
            advised = True


def _finish(trainer: Trainer, out: Path) -> None:
    from nas.runs.trial import read_progress
    from nas.storage.files import write_text
    from nas.terminal import class_table
    from nas.training.weights import save_weights
    from space import strict

    architecture, dataset = trainer.architecture, trainer.dataset
    scores = read_progress(out).history[-1].scores
    write_text(out / ARCHITECTURE, architecture.to_yaml())
    write_text(out / SCORES, strict.dump(ScoreCard.of(architecture, dataset, trainer.recipe, scores)))
    save_weights(out / WEIGHTS, trainer.weights(), metadata(architecture, Labelling.of(dataset)))
    print(f"\n{class_table(dataset.classes, scores)}\n\n{out}: {ARCHITECTURE} {WEIGHTS} {SCORES} {CHECKPOINT}")
