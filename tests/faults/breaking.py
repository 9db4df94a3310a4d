"""Put on the path of a search as `sitecustomize.py`: it breaks writes into the run's folder.

`BREAK` says how. With `kill` the process that writes is killed before what it wrote takes its place: between any two
kinds of file that follow each other, at the `BREAK_AT`-th time that they do, once. With `full` the disk is full from
the first write on whose target has `BREAK_AT` in its path inside the run. Writes of all processes of a search are noted
in the file `BREAK_WRITES`, kills in `BREAK_KILLS`, one in a line.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

HASHES = re.compile(r"[0-9a-f-]{12,}")  # of architectures, and of what Optuna's journal locks


def _install() -> None:
    run, how, at = os.environ["BREAK_RUN"], os.environ["BREAK"], os.environ["BREAK_AT"]
    noted, kills = Path(os.environ["BREAK_WRITES"]), Path(os.environ["BREAK_KILLS"])

    def kill_or_note(inside: str) -> None:
        with noted.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            before = ["", *(HASHES.sub("*", line) for line in file.read().splitlines())]
            this = (before[-1], HASHES.sub("*", inside))
            time = 1 + list(itertools.pairwise(before)).count(this)
            line = f"{run} {this[0]} -> {this[1]}"
            if time == int(at) and line not in kills.read_text().splitlines():
                with kills.open("a") as killed:
                    killed.write(f"{line}\n")
                os.kill(os.getpid(), signal.SIGKILL)
            file.write(f"{inside}\n")

    def refuse_or_note(inside: str) -> None:
        with noted.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(f"{inside}\n")
            file.seek(0)
            if any(at in line for line in file):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), run + inside)

    breaks = {"kill": kill_or_note, "full": refuse_or_note}[how]

    def broken(write: Callable[..., None]) -> Callable[..., None]:
        def into(source: Any, target: Any, **options: Any) -> None:
            if str(target).startswith(run):
                breaks(str(target).removeprefix(run))
            write(source, target, **options)

        return into

    os.replace, os.rename = broken(os.replace), broken(os.rename)


if "BREAK" in os.environ:
    _install()
