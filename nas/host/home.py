"""A home folder for libraries that require one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def some_home() -> Iterator[None]:
    """Import libraries here that fail if the user has no home folder, as in a container whose user has no entry: for
    them it is the folder of temporary files. (OpenVINO's telemetry looks for it on import.)
    """
    if is_known():
        yield
        return
    keep_some_home()
    try:
        yield
    finally:
        del os.environ["HOME"]


def keep_some_home() -> None:
    """The same for the rest of this process and processes that it starts, such as Ray's, which each look for a home."""
    if not is_known():
        os.environ["HOME"] = tempfile.gettempdir()


def is_known() -> bool:
    """Whether the user has a home folder."""
    return os.path.expanduser("~") != "~"
