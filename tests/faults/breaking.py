"""Put on the path of a search as `sitecustomize.py`: it breaks writes into the run's folder.

`BREAK` says how: `kill` the process that writes, before what it wrote takes its place, at write number `BREAK_AT` and
at every `BREAK_EVERY`-th after it; or a `full` disk from that number on. All processes of a search count together, from
1, in the file `BREAK_COUNT`. Each kill is noted in the file `BREAK_KILLS`.
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
    every, kills = int(os.environ["BREAK_EVERY"]), Path(os.environ["BREAK_KILLS"])
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
        if how == "kill" and count >= at and (count - at) % every == 0:
            with kills.open("a") as file:
                file.write("x")
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
