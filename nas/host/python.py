"""The start of other Python processes that run this very code, however it was imported here."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

OURS = Path(__file__).resolve().parents[2]


def command_of(module: str, words: Sequence[object] = ()) -> list[str]:
    """The command that runs a module; what lies about in the current folder is no module of ours."""
    return [sys.executable, "-P", "-m", module, *map(str, words)]


def environment() -> dict[str, str]:
    """This process's environment, in which a command's modules are found where this one found them."""
    # An empty entry is the current folder: PYTHONPATH=$PYTHONPATH:/more makes one by accident.
    paths = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    installed = (*site.getsitepackages(), site.getusersitepackages())
    # What is installed is found anyway, behind Python's own modules: there may be others of their names beside it.
    if OURS not in (Path(each).resolve() for each in installed):
        paths.insert(0, str(OURS))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
