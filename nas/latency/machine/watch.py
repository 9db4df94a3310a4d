"""The clock that calls are timed by and the counters of other activity on the machine, as a value that can be replaced
by a simulation.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from nas.latency.machine import load


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A machine's clock and counters."""

    nanoseconds: Callable[[], int]
    """A monotonic clock."""
    sleep: Callable[[float], None]
    """Waits for this many seconds."""
    snapshot: Callable[[str], load.Snapshot]
    """Counters of the machine now; the argument is the device, as in `load.snapshot`."""

    def seconds(self) -> float:
        """The clock in seconds."""
        return self.nanoseconds() / 1e9


THIS_MACHINE = Watch(nanoseconds=time.perf_counter_ns, sleep=time.sleep, snapshot=load.snapshot)
