"""Options that several commands share, and the functions that read them."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

from nas.host.words import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from nas.data import Dataset, DataSpec, Findings, SplitName
    from nas.latency.target import Target
    from nas.study import Study

DEFAULT_DATA = "road_scenes"
DEFAULT_INPUT = "180x240"
DEFAULT_CLASSES = 11
INPUT_LIMITS = (16, 8192)  # pixels
LARGEST_NUMBER = 1_000_000_000  # for options that take a whole number
ARCH = "a published name (erfnet), a name from `nas zoo`, a YAML file, or a folder of `nas train` or `nas search`"


def path(text: str) -> str:
    """Argument `type` for a path that is written to a file: it must be UTF-8. `~` is expanded where the shell did not,
    as in `--out=~/runs`.
    """
    from nas.storage.files import require_utf8
    from space.errors import UserError

    try:
        require_utf8(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return readable_path(text)


def readable_path(text: str) -> str:
    """Argument `type` for a path that is only read: as `path`, in any encoding."""
    from nas.storage.files import expanded

    return str(expanded(text)) if text.startswith("~") else text


def whole_number(text: str) -> int:
    """Argument `type` for a whole number of a size that libraries can handle."""
    try:
        number = int(text)
    except ValueError:
        number = LARGEST_NUMBER + 1
    if abs(number) > LARGEST_NUMBER:
        shown = text if len(text) <= 20 else f"{text[:20]}..."
        raise argparse.ArgumentTypeError(f"expected a whole number of at most {LARGEST_NUMBER:,}, got {shown!r}")
    return number


def add_architecture(parser: argparse.ArgumentParser, kind: Callable[[str], str] = path) -> None:
    """Add ARCH; `kind` is `readable_path` where it is not written to a file."""
    parser.add_argument("architecture", metavar="ARCH", type=kind, help=ARCH)


def add_trained(parser: argparse.ArgumentParser, kind: Callable[[str], str] = path) -> None:
    """Add ARCH and --weights; `kind` is `readable_path` where they are not written to a file."""
    add_architecture(parser, kind)
    parser.add_argument(
        "--weights",
        metavar="FILE",
        type=kind,
        help="weights.safetensors (default: those of the folder or of the network from `nas zoo`)",
    )


def add_data(parser: argparse.ArgumentParser, default: str | None = DEFAULT_DATA) -> None:
    """Add --data and --input; a `default` of None stands for the data that the weights were trained on."""
    text = "the data that the weights were trained on, if their place is known" if default is None else default
    parser.add_argument(
        "--data",
        metavar="SET[:ROOT]",
        default=default,
        help=f"road_scenes, camvid:DIR, cityscapes:DIR or folder:DIR (default: {text})",
    )
    add_input(parser, None if default is None else DEFAULT_INPUT)


def add_input(parser: argparse.ArgumentParser, default: str | None = DEFAULT_INPUT) -> None:
    """Add --input; a `default` of None stands for the size that the weights were trained at."""
    text = "the size that the weights were trained at" if default is None else default
    parser.add_argument(
        "--input", metavar="HxW", default=default, help=f"height and width of the network's input (default: {text})"
    )


def add_study(parser: argparse.ArgumentParser) -> None:
    """Add STUDY."""
    parser.add_argument(
        "study", nargs="?", metavar="STUDY", type=path, help="a study's YAML file (default: built-in road scenes)"
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add --target."""
    parser.add_argument(
        "--target",
        default="",
        metavar="TARGET",
        help="runtime and device to time on: onnxruntime@cpu, torch@cpu:1, cudagraph:fp16@cuda:0 (default: the fastest "
        "here)",
    )


def add_within(parser: argparse.ArgumentParser) -> None:
    """Add --within."""
    parser.add_argument(
        "--within",
        metavar="PERCENT",
        help="target half-width of the 95 %% interval, as a percentage of the latency; larger is faster (default: "
        "1.5%%)",
    )


def add_budgets(parser: argparse.ArgumentParser, several: str) -> None:
    """Add --budget for a command that takes several; `several` says what it does with them."""
    parser.add_argument(
        "--budget",
        metavar="TIME",
        dest="budgets",
        action="append",
        default=[],
        help=f"10ms, 100fps or '10ms p90'; overrides the study's; {several}",
    )


def add_patience(parser: argparse.ArgumentParser) -> None:
    """Add --patience."""
    parser.add_argument(
        "--patience",
        metavar="TIME",
        help="how long to wait for quiet moments on a busy machine, for each network: 90s, 5min (default: 12s)",
    )


def add_device(parser: argparse.ArgumentParser) -> None:
    """Add --device."""
    parser.add_argument(
        "--device", metavar="DEVICE", help="where PyTorch computes: cpu, cuda or cuda:1 (default: cuda if there is one)"
    )


def add_classes(parser: argparse.ArgumentParser) -> None:
    """Add --classes."""
    parser.add_argument(
        "--classes",
        metavar="N",
        type=whole_number,
        default=DEFAULT_CLASSES,
        help=f"number of classes (default: {DEFAULT_CLASSES})",
    )


def input_size(text: str, option: str = "--input") -> tuple[int, int]:
    """Height and width of a text such as `180x240`; `option` names it in errors.

    Raises: UserError for a text of another form.
    """
    from space.errors import UserError

    low, high = INPUT_LIMITS
    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if found is None or not low <= min(int(found[1]), int(found[2])) <= max(int(found[1]), int(found[2])) <= high:
        raise UserError(f"{option}: expected HEIGHTxWIDTH of {low} to {high} pixels such as 180x240, got {text!r}")
    return int(found[1]), int(found[2])


def class_count(options: argparse.Namespace) -> int:
    """The number of --classes.

    Raises: UserError for a number of classes that a label image cannot hold.
    """
    from space.errors import UserError

    count: int = options.classes
    if not 2 <= count <= 255:
        raise UserError(f"--classes: expected 2 to 255, got {count}")
    return count


def data_spec(text: str, size: tuple[int, int]) -> DataSpec:
    """The data set that --data names, at height and width `size`.

    Raises: DataError for an unknown data set; UserError for a folder whose name is not UTF-8.
    """
    from nas.data import DataSpec, data_sets
    from nas.errors import DataError
    from nas.storage.files import expanded, require_utf8

    require_utf8(text)
    name, colon, root = text.partition(":")
    if name not in data_sets() and expanded(text).is_dir():
        raise DataError(
            f"expected SET:DIR, got the folder {text} alone; give folder:{text}, or another reader of its files: "
            f"{', '.join(data_sets())}"
        )
    known = DataSpec(name=name)  # raises for an unknown name
    if known.name != DEFAULT_DATA and not root:
        raise DataError(f"expected {name}:DIR with the folder that holds it, got {text!r}")
    return DataSpec(name=name, root=root if colon else None, size=size)


def loaded(spec: DataSpec, *, test: bool = False) -> Dataset:
    """Load a data set, with its test split if asked for, and print progress while pictures are generated.

    Raises: DataError as `nas.data.load` does.
    """
    from nas.data import load
    from nas.latency.machine import lane
    from nas.terminal import ProgressLine

    return load(spec, test=test, guard=lane.shared_on("cpu"), progress=ProgressLine())


def say(words: str) -> None:
    """Print what the command does next, at once: the step may take minutes, and loading PyTorch takes seconds."""
    print(words, flush=True)


def looked_at(dataset: Dataset, splits: Sequence[SplitName] = ("train", "validation")) -> Findings:
    """Check a data set and return what it holds. Prints that it does so first, since all files may have to be decoded.

    Raises: DataError for a data set that cannot be used.
    """
    from nas.data import check
    from nas.latency.machine import lane
    from nas.terminal import ProgressLine

    counts = " and ".join(f"{len(dataset.split(name))} {'training' if name == 'train' else name}" for name in splits)
    images = sum(len(dataset.split(name)) for name in splits)
    say(f"looking at {counts} {'image' if images == 1 else 'images'} of {dataset.name}")
    progress = ProgressLine()
    with progress.over("looked at", images):
        return check(dataset, splits, lane.shared_on("cpu"), progress.count)


def say_notes(findings: Findings) -> None:
    """Print the notes on what is odd about a data set."""
    for note in findings.notes:
        say(f"note: {note}")


def look_at_space(study: Study, source: str | None) -> None:
    """Print which options of a study's space no network has; `source` is the study's file.

    Raises: ArchitectureError when the space has no networks, or no network can have what an axis is narrowed to.
    """
    from space.drawn import never_drawn
    from space.errors import ArchitectureError

    if not study.space:
        return
    try:
        drawn, never = never_drawn(study.architectures(), study.space)
    except ArchitectureError as error:
        raise ArchitectureError(f"{source}: {error}") from None
    for axis, options in never.items():
        named = ", ".join(map(str, options))
        unused = "; the axis never applied" if len(options) == len(set(study.space[axis])) else ""
        say(f"note: space.{axis}: none of {drawn} random networks has {named}{unused}")


def target(options: argparse.Namespace) -> Target:
    """The target that --target names, or this machine's fastest.

    Raises: TargetError for an unknown target.
    """
    from nas.latency import default_target, parse_target

    return parse_target(options.target) if options.target else default_target()


def built_in_study(options: argparse.Namespace, budget: str) -> Study:
    """The built-in study for a budget and --target; it differs for targets on a GPU.

    Raises: UserError for an unknown target, or a text that is no budget.
    """
    from dataclasses import replace

    from nas.latency import parse_target
    from nas.latency.budget import Budget
    from nas.latency.default import is_on_cuda
    from nas.study import built_in_study

    Budget.parse(budget)
    if options.target:
        asked = parse_target(options.target)
        return replace(built_in_study(budget, on_gpu=asked.on_cuda), target=str(asked))
    # Finding the default runtime may take timing, so that waits until all other options have been read.
    return built_in_study(budget, on_gpu=is_on_cuda())


def within(options: argparse.Namespace) -> float:
    """The percentage of --within as a share, or the protocol's default.

    Raises: UserError for a text that is no percentage, and for a share out of range.
    """
    from nas.latency.protocol import WITHIN, check_within
    from space.errors import UserError

    if options.within is None:
        return WITHIN
    found = re.fullmatch(r"(\d{1,2}(\.\d{1,3})?) ?%", options.within.strip())
    if found is None:
        raise UserError(f"--within: expected a percentage such as 1.5%, got {options.within!r}")
    return check_within(float(found[1]) / 100, "--within")


def patience(options: argparse.Namespace) -> float:
    """The seconds of --patience, or the protocol's default.

    Raises: UserError for a text that is no time, and for a longer wait than a measurement may take.
    """
    from nas.latency.protocol import PATIENCE_SECONDS, check_patience
    from space.errors import UserError

    if options.patience is None:
        return PATIENCE_SECONDS
    found = re.fullmatch(r"(\d{1,5}(\.\d{1,3})?) ?(s|min|h)", options.patience.strip())
    if found is None:
        raise UserError(f"--patience: expected a time such as 90s or 5min, got {options.patience!r}")
    return check_patience(float(found[1]) * {"s": 1, "min": 60, "h": 3600}[found[3]], "--patience")


def device(options: argparse.Namespace) -> str:
    """The device that --device names; else a GPU if there is one, else the CPU.

    Raises: UserError for a device that is not here, and when there is a GPU that torch cannot use.
    """
    import torch

    from nas.latency.machine.gpu import training_device
    from space.errors import UserError

    if options.device is None:
        return training_device()
    name: str = options.device
    found = re.fullmatch(r"cpu|cuda(:(\d{1,3}))?", name)
    if found is None:
        raise UserError(f"--device: expected cpu, cuda or cuda:N, got {name!r}")
    if name != "cpu" and int(found[2] or 0) >= torch.cuda.device_count():
        raise UserError(
            f"--device: expected a device of this machine, got {name} but torch sees "
            f"{counted(torch.cuda.device_count(), 'GPU')}; use cpu, or see `nas doctor`"
        )
    return name
