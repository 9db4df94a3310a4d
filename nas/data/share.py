"""The part of every batch that a process works on when several train one network together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")

MOST = 1024
"""Most processes that can train together."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """The share of one of `count` processes that train one network together; by default of the only one."""

    rank: int = 0
    """Number of the process, from 0; process 0 writes files and prints for all."""
    count: int = 1
    machines: tuple[int, ...] = ()
    """Number, from 0, of the machine that each process runs on; empty if all run on this one."""

    def __post_init__(self) -> None:
        assert 0 <= self.rank < self.count, (self.rank, self.count)
        assert len(self.machines) in (0, self.count), self.machines

    @property
    def machine_count(self) -> int:
        """Number of machines that the processes run on."""
        return max(self.machines, default=0) + 1

    def stands_for(self, machine: int) -> bool:
        """Whether this is the first process on the machine."""
        return self.rank == (self.machines.index(machine) if self.machines else 0)

    @property
    def is_whole(self) -> bool:
        """Whether this is the only process."""
        return self.count == 1

    def of(self, items: Sequence[Item]) -> list[Item]:
        """This process's part of the items. The lengths of all parts differ by at most one; a part may be empty."""
        return list(items[self.rank :: self.count])

    def most_of(self, items: int) -> int:
        """Length of the longest part of `items` items."""
        return -(-items // self.count)


WHOLE = Share()
"""The share of a process that trains alone."""
