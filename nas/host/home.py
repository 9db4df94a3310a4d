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
    if os.path.expanduser("~") != "~":
        yield
        return
    os.environ["HOME"] = tempfile.gettempdir()
    try:
        yield
    finally:
        del os.environ["HOME"]
