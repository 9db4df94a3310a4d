"""A home folder for libraries that ask for one."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def some_home() -> Iterator[None]:
    """Lets libraries be loaded that ask where the user's home is and end where nobody knows, as in a container whose
    user has no entry: they are told the folder of temporary files. (OpenVINO's telemetry asks as it is imported.)
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
    """The same for the rest of this process and for those that it starts (each of Ray's asks as it begins)."""
    if not is_known():
        os.environ["HOME"] = tempfile.gettempdir()


def is_known() -> bool:
    """Whether anybody knows where the user's home is."""
    return os.path.expanduser("~") != "~"
