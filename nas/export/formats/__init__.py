"""File formats of exported networks: one file each, found by its name. A new format is a new file here, nothing else.

Another package can bring one too: a module of it, named by an entry point of the group `framebudget.formats`
(`space.extensions`). Most are made from one ONNX graph (`nas.export.graph`), some from the PyTorch network by a
converter of their own. A format is a module with

    TITLE: str                     what it is called, in messages
    LIBRARY: str                   what reads it, in messages
    SUFFIXES: tuple[str, ...]      of the files that it consists of, which have one name; the first is the one to open
    missing() -> str | None        None when it can be written and run here, else what to install or change
    write(exported, path)          write the files of what is `Exported`; `path` ends in the first suffix, and the other
                                   files lie beside it (`files_of`)
    open_file(path) -> call        call(image) -> labels or logits, computed in full precision; the image is
                                   (1, 3, H, W) float32, both are NumPy arrays

`write` and `open_file` raise ExportError where the library refuses. No format imports its heavy library before it is
called.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from nas.errors import ExportError
from space import extensions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    Call = Callable[[NDArray[np.float32]], NDArray[Any]]

GROUP = "framebudget.formats"
NEEDS = ("TITLE", "LIBRARY", "SUFFIXES", "missing", "write", "open_file")
DEFAULT = "onnx"


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """What files are made of: a network at one input size."""

    network: nn.Module
    """From images (1, 3, H, W) to logits (1, C, H, W)."""
    size: tuple[int, int]
    """Height and width."""
    labels: bool
    """Whether the files give labels (1, H, W), or logits."""
    graph: bytes
    """ONNX, that gives the same."""


class Format(Protocol):
    """What every format offers."""

    TITLE: str
    LIBRARY: str
    SUFFIXES: tuple[str, ...]

    def missing(self) -> str | None:
        """None when files of it can be written and run here, else what is missing and how to get it."""

    def write(self, exported: Exported, path: Path) -> None:
        """Write the files, the first of them at `path`."""

    def open_file(self, path: Path) -> Call:
        """What runs the files: from an image (1, 3, H, W) to labels (1, H, W) or logits (1, C, H, W)."""


def to_install(*names: str) -> str | None:
    """How to get those of some modules that are not here; None where all are."""
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(lacking)}" if lacking else None


def names() -> tuple[str, ...]:
    """Every format that could be asked for, its library installed or not; the file a_b.py is the format a-b."""
    return tuple(extensions.modules(__name__, GROUP))


def load(name: str) -> Format:
    """The format of that name, which may still be missing its library.

    Raises: UserError when there is no such format, with the known ones, or another package's cannot be imported.
    """
    return cast(Format, extensions.load(__name__, GROUP, name, needs=NEEDS))


def require(name: str) -> Format:
    """The format of that name, ready to be written here.

    Raises: UserError as `load` does; ExportError when something is missing, which it names.
    """
    found = load(name)
    missing = found.missing()
    if missing is not None:
        raise ExportError(f"{name} cannot be written here: {missing}")
    return found


def files_of(form: Format, path: Path) -> tuple[Path, ...]:
    """The files of a network in that format, the first of which is `path`."""
    return path, *(path.with_suffix(each) for each in form.SUFFIXES[1:])
