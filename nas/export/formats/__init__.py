"""File formats of exported networks: one module each, found by its name. A new format is a new file here and nothing
else.

Another package can provide one too: a module of it, named by an entry point of the group `framebudget.formats`
(`space.extensions`). Most formats are made from an ONNX graph (`nas.export.graph`), some from the PyTorch network by a
converter of their own. A format is a module with

    TITLE: str                     its name in messages
    LIBRARY: str                   the library that reads it, in messages
    SUFFIXES: tuple[str, ...]      suffixes of its files, which share one name; the first is the file to open
    missing() -> str | None        None if files can be written and run here, else what to install or change
    write(exported, path)          write the files of an `Exported`; `path` ends in the first suffix, and the other
                                   files are beside it (`files_of`)
    open_file(path) -> call        call(image) -> labels or logits, computed in full precision. The image is
                                   (1, 3, H, W) float32; both are NumPy arrays

`write` and `open_file` raise ExportError if the library refuses. No format imports its heavy library before it is
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
    """A network at one input size, from which files are made."""

    network: nn.Module
    """The network, from images (1, 3, H, W) to logits (1, C, H, W)."""
    size: tuple[int, int]
    """Height and width of the input."""
    labels: bool
    """Whether the files output labels (1, H, W) instead of logits."""
    graph: bytes
    """An ONNX graph with the same output as the files."""


class Format(Protocol):
    """Functions of every format."""

    TITLE: str
    LIBRARY: str
    SUFFIXES: tuple[str, ...]

    def missing(self) -> str | None:
        """None if its files can be written and run here, else what is missing and how to get it."""

    def write(self, exported: Exported, path: Path) -> None:
        """Write the files, the first of them at `path`."""

    def open_file(self, path: Path) -> Call:
        """A call that runs the files, from an image (1, 3, H, W) to labels (1, H, W) or logits (1, C, H, W)."""


def to_install(*names: str) -> str | None:
    """How to install those of some modules that are missing; None if none is."""
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    return f"pip install {' '.join(lacking)}" if lacking else None


def names() -> tuple[str, ...]:
    """Names of all formats, whether or not their libraries are installed; the file a_b.py is the format a-b."""
    return tuple(extensions.modules(__name__, GROUP))


def load(name: str) -> Format:
    """The format of this name, whose library may be missing.

    Raises: UserError when there is no such format, naming the known ones, or its module in another package cannot be
    imported.
    """
    return cast(Format, extensions.load(__name__, GROUP, name, needs=NEEDS))


def require(name: str) -> Format:
    """The format of this name, ready to be written here.

    Raises: UserError as `load` does; ExportError when something is missing, naming it.
    """
    found = load(name)
    missing = found.missing()
    if missing is not None:
        raise ExportError(f"{name} cannot be written here: {missing}")
    return found


def files_of(form: Format, path: Path) -> tuple[Path, ...]:
    """The files of a network in this format, the first of which is `path`."""
    return path, *(path.with_suffix(suffix) for suffix in form.SUFFIXES[1:])
