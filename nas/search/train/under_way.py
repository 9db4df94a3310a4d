"""How far trainings are within their epochs: each worker keeps it in its training's folder, and the driver says it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nas.runs.folder import RunFolder
from nas.search.train.job import Job
from nas.terminal import Progress

WORDS = ".under.way.words.tmp"
KEEP_SECONDS = 8.0  # between what a worker keeps
LOOK_SECONDS = 8.0  # between looks of the driver
SILENT_SECONDS = 20.0  # of a training, after which it is told of: at the latest after both of the others, too
MOST_TOLD = 4  # trainings in one look, those first that were not told of for longest


@contextlib.contextmanager
def kept_in(folder: Path) -> Iterator[Progress]:
    """What is told how far the training in a folder is, and keeps it there for the driver: a shared folder is what the
    two have in common.
    """
    file = folder / WORDS

    def keep(words: str) -> None:
        with contextlib.suppress(OSError):  # a full disk says so where something is lost
            file.write_text(words, "utf-8")

    keep("begins")
    try:
        yield Progress(tell=keep, every_seconds=KEEP_SECONDS)
    finally:
        file.unlink(missing_ok=True)


class UnderWay:
    """Says of each training under way how far it is when nothing was said of it for long."""

    def __init__(
        self, run: RunFolder, say: Callable[[Job, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._run = run
        self._say = say
        self._clock = clock
        self._looks_at = clock()
        self._said: dict[Path, float] = {}  # when, by the folder of a training

    def heard(self, job: Job) -> None:
        """Something else was said of a training just now."""
        folder = job.folder(self._run)
        self._said[folder] = self._clock()
        with contextlib.suppress(OSError):  # what is kept there is older
            (folder / WORDS).unlink(missing_ok=True)

    def look(self, jobs: Iterable[Job]) -> None:
        """Look whether there is something to say of the trainings under way; costs nothing where it is too early."""
        now = self._clock()
        if now < self._looks_at:
            return
        self._looks_at = now + LOOK_SECONDS
        by_folder = {job.folder(self._run): job for job in jobs}
        self._said = {folder: self._said.get(folder, now) for folder in by_folder}
        due = [folder for folder, said in self._said.items() if now >= said + SILENT_SECONDS]
        words = {folder: found for folder in due if (found := _words(folder))}
        for folder in sorted(words, key=lambda each: self._said[each])[:MOST_TOLD]:
            self._say(by_folder[folder], words[folder])
            self._said[folder] = now


def _words(folder: Path) -> str:
    """What is kept in a training's folder; empty before it begins, and between two epochs."""
    try:
        return (folder / WORDS).read_text("utf-8")
    except OSError:
        return ""
