"""Rewrites the report of a run while it goes on, whenever trainings have ended, in a separate process.

Nothing waits for it: trainings go on, and a trial that ends while a page is being written leads to the next page. The
process itself holds the lane (`nas.latency.machine.lane`) around all of its work, so that it disturbs no timing even
when the search is killed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from nas.host.python import command_of, environment_variables
from nas.runs.folder import RunFolder

PAUSE_SECONDS = 30.0  # pause before each page, so that trials which end within it share a page
SHARE = 9  # the pause is at least this many times the duration of the last page: those of large runs take longer
LONGEST_SECONDS = 300.0  # limit for one page, waiting for timings included
LAST_SECONDS = 2.0  # time for an unfinished page to be abandoned at the end
LOOK_SECONDS = 0.1
NICENESS = 10


@contextlib.contextmanager
def live_report(run: RunFolder, pause_seconds: float = PAUSE_SECONDS) -> Iterator[Callable[[], None]]:
    """A function that requests new report.html and report.yaml; nothing writes them after the context."""
    requested, ended = threading.Event(), threading.Event()
    writer = threading.Thread(
        target=_write, args=(run.root, requested, ended, pause_seconds), name="report", daemon=True
    )
    writer.start()
    try:
        yield requested.set
    finally:
        ended.set()
        requested.set()
        writer.join(LAST_SECONDS)


def _write(root: Path, requested: threading.Event, ended: threading.Event, pause_seconds: float) -> None:
    took = 0.0
    while True:
        requested.wait()
        if ended.wait(max(pause_seconds, SHARE * took)):
            return
        requested.clear()
        begin = time.monotonic()
        with contextlib.suppress(OSError):  # no memory for another process, say: the next page may succeed
            _write_once(root, ended)
        took = time.monotonic() - begin


def _write_once(root: Path, ended: threading.Event) -> None:
    """Have one page written, unless the run ends meanwhile. A failure does not end the search: its final report raises
    what is wrong.
    """
    process = subprocess.Popen(
        command_of("nas.cli", ["report", root.resolve()]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment_variables(),
    )
    try:
        os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        end = time.monotonic() + LONGEST_SECONDS
        while process.poll() is None and time.monotonic() < end and not ended.wait(LOOK_SECONDS):
            pass
    finally:
        process.kill()
        process.wait()
