"""Interfaces for long work: the context of each of its steps, and the receiver of its progress."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Guard = Callable[[], AbstractContextManager[object]]
"""Creates the context of one step (making or using a batch, drawing a picture), as `nas.latency.machine.lane.shared_on`
does."""


class ProgressMonitor(Protocol):
    """Receives the progress of long work, as `nas.terminal.ProgressLine` does."""

    def over(self, what: str, of: int) -> AbstractContextManager[None]:
        """Context of work on `of` images; 0 for work that cannot be counted."""

    def count(self, more: int) -> None:
        """Report that `more` further images are done."""


class SilentMonitor:
    """A `ProgressMonitor` that ignores progress."""

    def over(self, what: str, of: int) -> AbstractContextManager[None]:
        """See `ProgressMonitor`."""
        return nullcontext()

    def count(self, more: int) -> None:
        """See `ProgressMonitor`."""
