"""Put on the path of a search as `sitecustomize.py`: it breaks the n-th write into the run's folder, in whatever
process that happens. `BREAK` says how: `kill` the process before what it wrote takes its place, or a `full` disk from
there on. `BREAK_AT` counts from 1; all processes of a search count together, in the file `BREAK_COUNT`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from pathlib import Path


def _install() -> None:
    how, at = os.environ["BREAK"], int(os.environ["BREAK_AT"])
    run, counted = os.environ["BREAK_RUN"], Path(os.environ["BREAK_COUNT"])
    replace, rename = os.replace, os.rename

    def number() -> int:
        with counted.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write("x")
            file.flush()
            return os.fstat(file.fileno()).st_size

    def breaks(source: object, target: object) -> None:
        if not str(target).startswith(run):
            return
        count = number()
        if how == "kill" and count == at:
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "full" and count >= at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    def broken_replace(source: object, target: object, **options: object) -> None:
        breaks(source, target)
        replace(source, target, **options)  # type: ignore[arg-type]

    def broken_rename(source: object, target: object, **options: object) -> None:
        breaks(source, target)
        rename(source, target, **options)  # type: ignore[arg-type]

    os.replace, os.rename = broken_replace, broken_rename


if "BREAK" in os.environ:
    _install()
