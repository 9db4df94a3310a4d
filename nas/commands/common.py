"""Arguments that several commands share, read the same way everywhere."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.data import DataSpec
    from space import Architecture
    from space.target import Target


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data and --input."""
    parser.add_argument(
        "--data",
        metavar="SET[:ROOT]",
        default="road_scenes",
        help="road_scenes (default), camvid:DIR, cityscapes:DIR or folder:DIR",
    )
    add_input(parser)


def add_input(parser: argparse.ArgumentParser) -> None:
    """--input."""
    parser.add_argument(
        "--input", metavar="HxW", default="180x240", help="size that the network works at (default 180x240)"
    )


def add_target(parser: argparse.ArgumentParser) -> None:
    """--target."""
    parser.add_argument(
        "--target",
        default="",
        metavar="TARGET",
        help="where latency counts: onnxruntime@cpu, torch@cpu:1, cudagraph:fp16@cuda:0 (default: this machine's fastest)",
    )


def input_size(text: str) -> tuple[int, int]:
    """Height and width of `180x240`.

    Raises: UserError for anything else.
    """
    from space.errors import UserError

    found = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", text.strip())
    if found is None or min(int(found[1]), int(found[2])) < 16:
        raise UserError(f"--input: expected HEIGHTxWIDTH of at least 16 pixels such as 180x240, got {text!r}")
    return int(found[1]), int(found[2])


def data_spec(options: argparse.Namespace) -> DataSpec:
    """The data set that --data and --input name.

    Raises: DataError for an unknown one.
    """
    from nas.data import DataSpec

    name, colon, root = options.data.partition(":")
    return DataSpec(name=name, root=root if colon else None, size=input_size(options.input))


def target(options: argparse.Namespace) -> Target:
    """The target that --target names, or this machine's fastest.

    Raises: TargetError for one that is unknown.
    """
    from nas.latency import default_target, parse_target

    return parse_target(options.target) if options.target else default_target()


def load_architecture(name_or_path: str) -> Architecture:
    """A published network, a YAML file, or a winner's folder."""
    from pathlib import Path

    import space

    folder = Path(name_or_path)
    if folder.is_dir() and (folder / "architecture.yaml").is_file():
        return space.load(folder / "architecture.yaml")
    return space.load(name_or_path)
