"""The report of a run while it goes on: written anew as trainings end, by a process of its own.

Nothing waits for it: trainings go on, and a trial that ends while a page is written leads to the next one. That process
alone enters the lane (`nas.latency.machine.lane`), around all of its work: it disturbs no timing, also where the search
is killed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nas.host.python import command_of, environment
from nas.runs.folder import RunFolder

PAUSE_SECONDS = 30.0  # before each page: trials that end within it are told of together
SHARE = 9  # pages of large runs take longer: so many times as long as the last one took, too
LONGEST_SECONDS = 300.0  # that a page may take, waiting for timings included
LAST_SECONDS = 2.0  # for a page under way to be given up
LOOK_SECONDS = 0.1
NICENESS = 10


@contextlib.contextmanager
def live_report(run: RunFolder, pause_seconds: float = PAUSE_SECONDS) -> Iterator[Callable[[], None]]:
    """What asks for a new report.html and report.yaml; at the end nothing writes them any more."""
    asked, ended = threading.Event(), threading.Event()
    writer = threading.Thread(target=_write, args=(run.root, asked, ended, pause_seconds), name="report", daemon=True)
    writer.start()
    try:
        yield asked.set
    finally:
        ended.set()
        asked.set()
        writer.join(LAST_SECONDS)


def _write(root: Path, asked: threading.Event, ended: threading.Event, pause_seconds: float) -> None:
    took = 0.0
    while True:
        asked.wait()
        if ended.wait(max(pause_seconds, SHARE * took)):
            return
        asked.clear()
        begin = time.monotonic()
        with contextlib.suppress(OSError):  # no room for another process, say: the next may be
            _write_once(root, ended)
        took = time.monotonic() - begin


def _write_once(root: Path, ended: threading.Event) -> None:
    """Have one page written, unless the run ends meanwhile. One that fails is no reason to end a search: what is wrong
    is told by the report at its end.
    """
    process = subprocess.Popen(
        command_of("nas.cli", ["report", root.resolve()]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(),
    )
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        end = time.monotonic() + LONGEST_SECONDS
        while process.poll() is None and time.monotonic() < end and not ended.wait(LOOK_SECONDS):
            pass
    finally:
        process.kill()
        process.wait()
