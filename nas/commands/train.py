"""`nas train`: train one network, with a checkpoint after every epoch."""

from __future__ import annotations

import argparse
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from nas.commands.shared import common, ending, output
from nas.runs.labelling import ARCHITECTURE, WEIGHTS
from nas.runs.trained import CHECKPOINT, COMPUTE_MODE, OF_A_TRAINING, PRETRAINED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from nas.commands.shared.training_process import TrainingSpec
    from nas.data import Dataset, DataSpec
    from nas.runs.processes import Work
    from nas.search.search import Workers
    from nas.training.recipe import Recipe, TrainingStage
    from space.architecture import Architecture

FEWEST_CLASSES = 2  # for a first check of memory, before the data and their classes are known
EPILOG = """\
examples:
  nas train erfnet --out runs/erfnet
  nas train fplnet --data camvid:~/camvid --input 360x480 --recipe fplnet --out runs/fplnet
  nas train fplnet --data camvid:~/camvid --input 360x480 --recipe fplnet --out runs/fplnet --resume
  nas train swiftnet-rn18 --data cityscapes:~/cityscapes --input 1024x2048 --recipe swiftnet --init resnet18.pth
  nas train regseg --data cityscapes:~/cityscapes --input 1024x2048 --recipe regseg --processes gpus
  nas train regseg --data cityscapes:/mnt/cityscapes --processes gpus --address auto --out /mnt/runs/regseg"""


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
        help="a recipe's name such as ddrnet, a YAML file, or 'published' for ARCH's own (default: quick)",
    )
    parser.add_argument(
        "--init",
        metavar="FILE",
        type=common.path,
        help="start from pretrained weights: torchvision's ResNet-18 or MobileNetV2, checkpoints of ERFNet or "
        "SwiftNet, weights.safetensors of a training",
    )
    parser.add_argument(
        "--epochs", type=common.whole_number, metavar="N", help="number of epochs (default: the recipe's)"
    )
    parser.add_argument(
        "--batch-size", type=common.whole_number, metavar="N", help="images per batch (default: the recipe's)"
    )
    parser.add_argument("--seed", type=common.whole_number, metavar="N", help="random seed (default: the recipe's)")
    parser.add_argument(
        "--probe",
        action="store_true",
        help="try a few steps first to find the fastest precision and memory layout; results may round differently",
    )
    parser.add_argument(
        "--out", metavar="DIR", type=common.path, help="folder for the weights (default: runs/train-ARCH)"
    )
    parser.add_argument("--resume", action="store_true", help="continue after the last finished epoch in --out")
    parser.add_argument(
        "--processes",
        default="1",
        metavar="N",
        help="divide every batch among N processes, each on a GPU of its own; 'gpus': one per GPU (default: 1)",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="take the processes from this Ray cluster; 'auto' finds a local one"
    )
    common.add_device(parser)


def run(options: argparse.Namespace) -> None:
    """Train, or resume a training, and write architecture, weights and scores."""
    from nas.runs.trained import load_architecture

    architecture = load_architecture(options.architecture)
    recipe = _recipe(options)
    _require_count(options.processes)
    with _members(options) as members:
        _train(options, architecture, recipe, members)


def _train(options: argparse.Namespace, architecture: Architecture, recipe: Recipe, members: Workers | None) -> None:
    from dataclasses import replace
    from functools import partial
    from pathlib import Path

    from nas.host.cores import usable_cores
    from nas.storage.files import expanded

    out = Path(options.out or f"runs/train-{Path(options.architecture).stem}")
    common.say(f"training {options.architecture} in {out}")
    device = common.device(options) if members is None else members.device
    processes = _processes(options.processes, device) if members is None else members.concurrent
    spec = common.data_spec(options.data, common.input_size(options.input))
    if members is None:
        stages = _known_stages(recipe, architecture, from_start=recipe.init is None and not options.resume)
        _require_room(architecture, spec.size, recipe, stages, device, processes)
    else:  # each process checks its own memory, and has another working directory
        root = None if spec.root is None else str(expanded(spec.root).absolute())
        out, spec = out.absolute(), replace(spec, root=root)
    output.require_folder(out)  # before PyTorch is loaded

    from nas.commands.shared.training_process import TrainingSpec, work
    from nas.training.room import require_shares

    def going_on() -> str:
        if (out / CHECKPOINT).is_file():
            return f"--resume goes on from the last finished epoch, in {out}"
        return "no epoch was finished: the same command begins anew"

    # No other process may change the folder meanwhile.
    with ending.told(going_on), output.owned(out, resume=options.resume):
        _require_folder(out, architecture, resume=options.resume)
        recipe = _held_recipe(out, recipe, resume=options.resume)
        dataset = common.loaded(spec)
        stages = _known_stages(recipe, architecture, from_start=recipe.init is None)
        require_shares(min(len(dataset.train), *(stage.batch_size for stage in stages)), processes)
        _hold_to_data(out, spec, dataset, resume=options.resume)
        if options.resume and not (out / CHECKPOINT).is_file():
            common.say(f"nothing to go on from in {out}: the training begins")
        if not options.resume:
            (out / COMPUTE_MODE).unlink(missing_ok=True)  # left by a training that ended in its first epoch
        training = TrainingSpec(
            name=options.architecture,
            architecture=architecture,
            dataset=dataset,
            recipe=recipe,
            recipe_name=options.recipe,
            out=out,
            device=device,
            threads=max(1, usable_cores() // processes) if members is None else members.threads,
            from_tensors=recipe.init is not None,
            begun=(out / CHECKPOINT).is_file(),
        )
        _work(partial(work, training), members, training, spec.root, processes)


@contextmanager
def _members(options: argparse.Namespace) -> Iterator[Workers | None]:
    """Join the cluster at --address; the workers that train there, or None where this machine trains.

    Raises: UserError when there is no such cluster, or no room in it.
    """
    if options.address is None:
        yield None
        return
    from nas.search.cluster.address import address_of

    address_of(options.address)
    from nas.search.cluster.processes import members_of
    from nas.search.cluster.session import joined_ray
    from nas.search.cluster.workers import resources_of_nodes

    with joined_ray(options.address):
        yield members_of(resources_of_nodes(), options.processes, options.device)


def _work(work: Work, members: Workers | None, training: TrainingSpec, root: str | None, processes: int) -> None:
    """Train in processes of this machine or of the cluster."""
    if members is None:
        from nas.runs.processes import work_together

        work_together(work, processes, on_gpus=training.device != "cpu")
        return
    from nas.runs.data_seen import FILE
    from nas.search.cluster.processes import work_on_nodes
    from nas.search.cluster.workers import require_nodes

    require_nodes(training.out / FILE, training.dataset, root, training.device, common.say)
    work_on_nodes(work, members)


def _require_folder(out: Path, architecture: Architecture, *, resume: bool) -> None:
    """Raises: UserError for a folder that holds anything but a training to resume, or files that a training of this
    architecture may replace.
    """
    from nas.runs.trial import read_progress
    from nas.training.checkpoint import is_checkpoint
    from space import UserError

    begun = (out / CHECKPOINT).is_file()
    if not resume and (begun or (out / WEIGHTS).exists()):
        raise UserError(f"--out: {out} holds a training already; go on with --resume, or give another --out")
    output.require_folder_for("a training", out, CHECKPOINT)
    if begun and not (is_checkpoint(out / CHECKPOINT) or read_progress(out).history):
        raise UserError(
            f"--out: expected a {CHECKPOINT} that `nas train` wrote, got another file in {out}, which would be lost; "
            "give another folder, or remove the file to begin anew"
        )
    if not begun and (name := _first_of_others(out, architecture)):
        raise UserError(
            f"--out: expected a new folder, or one with a {CHECKPOINT} and --resume, got {out} with {name}, which "
            "would be lost; give another one"
        )


def _first_of_others(out: Path, architecture: Architecture) -> str:
    """The first file that a training of `architecture` would overwrite, other than those left by a training that ended
    in its first epoch; empty where there is none.
    """
    import space
    from nas.runs.data_seen import FILE as DATA_SEEN
    from nas.runs.data_seen import data_seen
    from nas.runs.initial_weights import RECORD, TENSORS, initial_weights, is_kept
    from nas.storage.records import find_record
    from nas.training.compute_mode import ComputeMode
    from nas.training.pretrained import Taken

    left: dict[str, Callable[[], object]] = {
        DATA_SEEN: lambda: data_seen(out),
        RECORD: lambda: initial_weights(out),
        TENSORS: lambda: is_kept(out),
        COMPUTE_MODE: lambda: find_record(out / COMPUTE_MODE, "the compute mode of a training", ComputeMode),
        PRETRAINED: lambda: find_record(out / PRETRAINED, "what a training began with", Taken),
        ARCHITECTURE: lambda: space.load(out / ARCHITECTURE) == architecture,
    }
    for name in OF_A_TRAINING:
        if os.path.lexists(out / name):
            try:
                is_left = name in left and bool(left[name]())  # all other files are written after a checkpoint
            except space.UserError:
                is_left = False
            if not is_left:
                return name
    return ""


def _held_recipe(out: Path, recipe: Recipe, *, resume: bool) -> Recipe:
    """The recipe, with `init` replaced by the pretrained weights kept in the training's folder, if any.

    Raises: UserError when they cannot be read, or are not those that the training began with.
    """
    from dataclasses import replace

    from nas.runs.initial_weights import hold_to_initial_weights

    kept = hold_to_initial_weights(out, recipe.init, begun=resume, trained=(out / CHECKPOINT).is_file())
    return replace(recipe, init=None if kept is None else str(kept))


def _hold_to_data(out: Path, spec: DataSpec, dataset: Dataset, *, resume: bool) -> None:
    """Check the data, print notes on them, and make sure that a resumed training has the same data.

    Raises: DataError for data that cannot be trained on, UserError when the training began on other data.
    """
    from nas.runs.data_seen import hold_to_data

    findings = common.looked_at(dataset)
    common.say_notes(findings)
    hold_to_data(out, findings.fingerprint, root=spec.root, begun=resume and (out / CHECKPOINT).is_file())


def _require_count(words: str) -> None:
    """Raises: UserError for a text that is no number of processes."""
    from nas.data.share import MOST
    from space import UserError

    found = re.fullmatch(r"[1-9]\d{0,3}|gpus", words)
    if found is None or (words != "gpus" and int(words) > MOST):
        raise UserError(f"--processes: expected a number from 1 to {MOST}, or gpus for one per GPU, got {words!r}")


def _processes(words: str, device: str) -> int:
    """How many processes train on this machine.

    Raises: UserError when there are fewer GPUs than processes.
    """
    from space import UserError

    if words == "1":
        return 1
    if device == "cpu":
        if words == "gpus":
            raise UserError("--processes: expected GPUs for `gpus`, got the CPU; give a number, or see `nas doctor`")
        return int(words)
    if device != "cuda":
        raise UserError(
            f"--processes: expected --device cuda, because each process has its own GPU, got {device}; leave one out"
        )
    import torch

    here = torch.cuda.device_count()
    count = here if words == "gpus" else int(words)
    if count > here:
        raise UserError(
            f"--processes: expected a GPU for each, got {words} processes but torch sees {here}; give {here}"
        )
    return count


def _known_stages(recipe: Recipe, architecture: Architecture, *, from_start: bool) -> tuple[TrainingStage, ...]:
    """The stages that a training is sure to have. A training that is not `from_start` may have weights of a whole
    network; whether it then skips the encoder's stage, only the trainer finds out.
    """
    return recipe.stages(architecture, recipe.epochs if from_start else None)


def _require_room(
    architecture: Architecture,
    size: tuple[int, int],
    recipe: Recipe,
    stages: Iterable[TrainingStage],
    device: str,
    processes: int,
) -> None:
    """Refuse a training that does not fit into memory, before pictures of that size are read or generated. On GPUs each
    process has one.

    Raises: UserError with the largest that would fit.
    """
    from nas.data.share import WHOLE, Share
    from nas.training.room import require_room

    share = WHOLE if device == "cpu" else Share(count=processes)
    require_room(architecture, recipe, size, FEWEST_CLASSES, stages, device=device, share=share)


def _recipe(options: argparse.Namespace) -> Recipe:
    from dataclasses import replace

    from nas.training import load_recipe, recipe_of_network

    recipe = recipe_of_network(options.architecture) if options.recipe == "published" else load_recipe(options.recipe)
    given = {name: getattr(options, name) for name in ("epochs", "batch_size", "seed", "init")}
    recipe = replace(recipe, probe=recipe.probe or options.probe)
    if recipe.encoder is not None and options.batch_size is not None:
        recipe = replace(recipe, encoder=replace(recipe.encoder, batch_size=options.batch_size))
    return replace(recipe, **{name: value for name, value in given.items() if value is not None})
