"""How long a run was worked on, kept in its folder: a search that is to be over in time, and is interrupted, goes on
with what is left of it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from nas.runs.folder import SPENT, RunFolder
from nas.storage.files import write_text
from nas.storage.records import find_record
from space import UserError, strict

EVERY_SECONDS = 5.0  # is it written: what a kill loses


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The time of all commands that worked on a run."""

    seconds: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.seconds < math.inf:
            raise UserError(f"seconds: expected 0 or more, got {self.seconds}; remove the file to begin at 0")


class Stopwatch:
    """Runs on from where the last command stopped.

    Raises: UserError when the run's file is damaged.
    """

    def __init__(self, run: RunFolder) -> None:
        self._file = run.root / SPENT
        self._before = (find_record(self._file, "how long a run was worked on", Spent) or Spent()).seconds
        self._begun = self._kept = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the run began, without the pauses between commands."""
        return self._before + time.monotonic() - self._begun

    def keep(self) -> None:
        """Write it down, unless that was done just before."""
        now = time.monotonic()
        if now - self._kept >= EVERY_SECONDS:
            self._kept = now
            write_text(self._file, strict.dump(Spent(seconds=round(self.seconds, 1))))
