"""Which part of every batch a process works on, where several train one network together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

MOST = 1024
"""Processes that can train together."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """One of `count` processes that train one network together; by default the only one."""

    rank: int = 0
    """From 0; the first one writes and speaks for all."""
    count: int = 1
    machines: tuple[int, ...] = ()
    """On which machine each of them runs, numbered from 0; empty where all run on this one."""

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.count, (self.rank, self.count)
        assert len(self.machines) in (0, self.count), self.machines

    @property
    def machine_count(self) -> int:
        """How many machines they run on."""
        return max(self.machines, default=0) + 1

    def stands_for(self, machine: int) -> bool:
        """Whether it is the first of those on a machine."""
        return self.rank == (self.machines.index(machine) if self.machines else 0)

    @property
    def is_whole(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """This process's part; those of all are as long as each other, up to one item, and may be empty."""
        return list(items[self.rank :: self.count])

    def most_of(self, items: int) -> int:
        """The length of the longest part of so many items."""
        return -(-items // self.count)


WHOLE = Share()
"""That of a process which trains alone."""
