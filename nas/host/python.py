"""Starting other Python processes that run this same code, however it was imported here."""

from __future__ import annotations

import os
import site
import sys
from collections.abc import Sequence
from pathlib import Path

OURS = Path(__file__).resolve().parents[2]


def command_of(module: str, words: Sequence[object] = ()) -> list[str]:
    """The command that runs a module. Files in the current folder are not imported as modules (-P)."""
    return [sys.executable, "-P", "-m", module, *map(str, words)]


def environment_variables() -> dict[str, str]:
    """The environment of this process, completed so that another one finds the same modules."""
    # An empty entry means the current folder: PYTHONPATH=$PYTHONPATH:/more makes one by accident.
    paths = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    installed = (*site.getsitepackages(), site.getusersitepackages())
    # An installed package is found anyway. Its folder may also hold modules with names of the standard library, which
    # must not come first.
    if OURS not in (Path(each).resolve() for each in installed):
        paths.insert(0, str(OURS))
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
