"""Progress of trainings within their epochs: each worker writes it into its training's folder, and the driver reports
it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nas.runs.folder import RunFolder
from nas.search.train.job import Job
from nas.terminal import ProgressLine

WORDS = ".under.way.words.tmp"
KEEP_SECONDS = 8.0  # interval at which a worker writes
LOOK_SECONDS = 8.0  # interval at which the driver reads
SILENT_SECONDS = 20.0  # a training without any line for so long is reported; a report may lag by both intervals above
MOST_REPORTED = 4  # trainings at a time, those first that had no line for the longest time


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[ProgressLine]:
    """A `ProgressLine` that writes into a training's folder, which the driver sees too."""
    file = folder / WORDS

    def keep(words: str) -> None:
        with contextlib.suppress(OSError):  # a full disk is reported where data would be lost
            file.write_text(words, "utf-8")

    keep("begins")
    try:
        yield ProgressLine(tell=keep, every_seconds=KEEP_SECONDS)
    finally:
        file.unlink(missing_ok=True)


class UnderWay:
    """Reports the progress of trainings under way that had no line for long."""

    def __init__(
        self, run: RunFolder, log: Callable[[Job, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._log = log
        self._clock = clock
        self._next_look = clock()
        self._last_line: dict[Path, float] = {}  # its time, by the folder of a training

    def heard(self, job: Job) -> None:
        """Another line was printed about a training just now."""
        folder = job.folder(self._run)
        self._last_line[folder] = self._clock()
        with contextlib.suppress(OSError):  # the progress written there is older than that line
            (folder / WORDS).unlink(missing_ok=True)

    def look(self, jobs: Iterable[Job]) -> None:
        """Report trainings under way where that is due; costs nothing where it is too early."""
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + LOOK_SECONDS
        by_folder = {job.folder(self._run): job for job in jobs}
        self._last_line = {folder: self._last_line.get(folder, now) for folder in by_folder}
        due = [folder for folder, last in self._last_line.items() if now >= last + SILENT_SECONDS]
        words = {folder: found for folder in due if (found := _words(folder))}
        for folder in sorted(words, key=lambda each: self._last_line[each])[:MOST_REPORTED]:
            self._log(by_folder[folder], words[folder])
            self._last_line[folder] = now


def _words(folder: Path) -> str:
    """The progress written into a training's folder; empty before it begins, and between two epochs."""
    try:
        return (folder / WORDS).read_text("utf-8")
    except OSError:
        return ""
