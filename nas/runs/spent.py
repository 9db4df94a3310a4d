"""The time spent on a run, kept in its folder: an interrupted search with a time limit goes on with the time that is
left, and does not resume proposing once proposals have ended.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from nas.runs.folder import SPENT, RunFolder
from nas.storage.files import write_text
from nas.storage.records import find_record
from nas.study import SearchPlan
from space import UserError, strict

EVERY_SECONDS = 5.0  # least time between two writes


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The total time of all commands that worked on a run."""

    seconds: float = 0.0
    closed_minutes: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The time limit that ended proposals, in minutes; 0 while none has."""
    over_minutes: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The time limit of which too little is left for any more work, in minutes; 0 while there is none."""

    def __post_init__(self) -> None:
        for name in ("seconds", "closed_minutes", "over_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}; remove the file to begin at 0")

    def closes(self, plan: SearchPlan) -> bool:
        """Whether the time limit of this plan has ended proposals."""
        return 0 < plan.minutes <= self.closed_minutes


def spent_of(run: RunFolder) -> Spent:
    """The time spent on a run; none in runs of earlier versions.

    Raises: UserError when its file is damaged.
    """
    return find_record(run.root / SPENT, "a record of the time spent on a run", Spent) or Spent()


def forget_spent(run: RunFolder) -> None:
    """Reset the time of a run: another question gets the whole time limit again."""
    (run.root / SPENT).unlink(missing_ok=True)


class Stopwatch:
    """A context manager that continues the time of a run where the last command stopped, and records it.

    Raises: UserError when the run's file is damaged.
    """

    def __init__(self, run: RunFolder) -> None:
        self._file = run.root / SPENT
        self._before = spent_of(run)
        self._closed_minutes = self._before.closed_minutes
        self._over_minutes = self._before.over_minutes
        self._begun = self._kept = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):  # do not hide the error that ended the context
            self._write()

    @property
    def spent(self) -> Spent:
        """The time since the run began, without pauses between commands."""
        seconds = self._before.seconds + time.monotonic() - self._begun
        return Spent(seconds=round(seconds, 1), closed_minutes=self._closed_minutes, over_minutes=self._over_minutes)

    def left_seconds(self, plan: SearchPlan) -> float:
        """Seconds left of a plan's minutes. Infinite where it has no limit, or where the limit was reached before this
        command: resuming then means finishing what is left.
        """
        limit = 60 * plan.minutes
        if not limit or self._before.over_minutes >= plan.minutes or self._before.seconds >= limit:
            return math.inf
        return limit - self.spent.seconds

    def keep(self) -> None:
        """Write the time to the file, at most every `EVERY_SECONDS`."""
        if time.monotonic() - self._kept >= EVERY_SECONDS:
            self._write()

    def close(self, minutes: float) -> None:
        """Record that this time limit has ended proposals."""
        if minutes > self._closed_minutes:
            self._closed_minutes = minutes
            self._write()

    def end(self, minutes: float) -> None:
        """Record that this time limit leaves no time for any more work."""
        self._over_minutes = max(self._over_minutes, minutes)
        self._closed_minutes = max(self._closed_minutes, minutes)
        self._write()

    def _write(self) -> None:
        self._kept = time.monotonic()
        write_text(self._file, strict.dump(self.spent))
