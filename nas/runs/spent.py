"""How long a run was worked on, kept in its folder: a search that is to be over in time, and is interrupted, goes on
with what is left of it, and does not begin to propose again what was over.
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

EVERY_SECONDS = 5.0  # is it written at the most


@dataclass(frozen=True, kw_only=True)
class Spent:
    """The time of all commands that worked on a run."""

    seconds: float = 0.0
    closed_minutes: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The limit for whose sake nothing more is proposed; 0 where that is not so."""
    over_minutes: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The limit of which nothing is left that would do for more; 0 where that is not so."""

    def __post_init__(self) -> None:
        for name in ("seconds", "closed_minutes", "over_minutes"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name}: expected 0 or more, got {getattr(self, name)}; remove the file to begin at 0")

    def closes(self, plan: SearchPlan) -> bool:
        """Whether nothing more is proposed by this plan."""
        return 0 < plan.minutes <= self.closed_minutes


def spent_of(run: RunFolder) -> Spent:
    """What a run says; nothing in runs of earlier versions.

    Raises: UserError when its file is damaged.
    """
    return find_record(run.root / SPENT, "how long a run was worked on", Spent) or Spent()


def forget_spent(run: RunFolder) -> None:
    """It is asked something else, which has the time for itself."""
    (run.root / SPENT).unlink(missing_ok=True)


class Stopwatch:
    """A context that runs on from where the last command stopped, and keeps how far it came.

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
        with contextlib.suppress(OSError):  # whatever ended it is what is told
            self._write()

    @property
    def spent(self) -> Spent:
        """Since the run began, without the pauses between commands."""
        seconds = self._before.seconds + time.monotonic() - self._begun
        return Spent(seconds=round(seconds, 1), closed_minutes=self._closed_minutes, over_minutes=self._over_minutes)

    def left_seconds(self, plan: SearchPlan) -> float:
        """Of a plan's minutes. Without end where it has none, or where their time was over before this command: who
        goes on then asks for what is left to be done.
        """
        limit = 60 * plan.minutes
        if not limit or self._before.over_minutes >= plan.minutes or self._before.seconds >= limit:
            return math.inf
        return limit - self.spent.seconds

    def keep(self) -> None:
        """Write it down, unless that was done just before."""
        if time.monotonic() - self._kept >= EVERY_SECONDS:
            self._write()

    def close(self, minutes: float) -> None:
        """Nothing more is proposed for the sake of this limit."""
        if minutes > self._closed_minutes:
            self._closed_minutes = minutes
            self._write()

    def end(self, minutes: float) -> None:
        """Nothing more is done for the sake of this limit."""
        self._over_minutes = max(self._over_minutes, minutes)
        self._closed_minutes = max(self._closed_minutes, minutes)
        self._write()

    def _write(self) -> None:
        self._kept = time.monotonic()
        write_text(self._file, strict.dump(self.spent))
