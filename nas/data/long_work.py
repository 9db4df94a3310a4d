"""What work that takes long is given: the context of each of its steps, and who hears how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

Guard = Callable[[], AbstractContextManager[object]]
"""Gives the context of one step (a batch is made or worked on, a picture drawn), such as
`nas.latency.machine.lane.shared_on` gives."""


class Told(Protocol):
    """Hears how far work is, as `nas.terminal.Progress` does."""

    def over(self, what: str, of: int) -> AbstractContextManager[None]:
        """Inside, so many images are worked on; 0 of work that cannot be counted."""

    def count(self, more: int) -> None:
        """So many more are done."""


class Untold:
    """Where nobody wants to know."""

    def over(self, what: str, of: int) -> AbstractContextManager[None]:
        """As `Told` says."""
        return nullcontext()

    def count(self, more: int) -> None:
        """As `Told` says."""
