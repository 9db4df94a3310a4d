"""What else the machine did while we measured: other processes, waiting for a core, a stolen core, heat; without root.

All of it is read from /proc and /sys before and after. Times of the whole machine come in steps of 10 ms, so that short
measurements get a slack of a few steps; what the machine does not report counts as nothing seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.latency.machine import gpu
from nas.latency.machine.gpu import UNSEEN, GpuState

# What is tolerated, as a share of the time
FOREIGN_SHARE = 0.10  # of the cores that this process is pinned to
NEIGHBOUR_SHARE = 0.25  # of all cores: they share memory bandwidth and the power that sets the clock
WAITING_SHARE = 0.05  # of our threads
STOLEN_SHARE = 0.02  # of the cores that this process is pinned to
SLACK_SECONDS = 0.04  # four steps of the kernel's clock


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Counters at one moment; times are in seconds."""

    wall: float
    own: float
    """CPU time of this process."""
    waiting: float
    """Time that threads of this process waited for a core."""
    pinned_busy: float
    """Time that the cores were busy which this process is pinned to."""
    pinned_stolen: float
    """Time that a hypervisor took from them."""
    machine_busy: float
    """Time that all cores were busy."""
    machine_cores: int
    pinned_cores: int
    throttles: int = 0
    """How often heat slowed the cores down which this process is pinned to."""
    gpu: GpuState = UNSEEN


Span = tuple[Snapshot, Snapshot]
"""Before and after some timing."""


def snapshot(device: str = "cpu") -> Snapshot:
    """The counters now, of the machine and of `device` if that is a GPU."""
    pinned = os.sched_getaffinity(0)
    cores = _core_times()
    mine = [times for core, times in cores.items() if core in pinned]
    return Snapshot(
        wall=time.monotonic(),
        own=time.process_time(),
        waiting=_waiting_seconds(),
        pinned_busy=sum(busy for busy, _ in mine),
        pinned_stolen=sum(stolen for _, stolen in mine),
        machine_busy=sum(busy for busy, _ in cores.values()),
        machine_cores=len(cores),
        pinned_cores=len(pinned),
        throttles=sum(_throttles(core) for core in pinned),
        gpu=UNSEEN if device == "cpu" else gpu.read(device),
    )


def disturbances(spans: Sequence[Span], threads: int, *, neighbours: bool = True) -> tuple[str, ...]:
    """Reasons to distrust what was timed during `spans` by a process of `threads` busy threads. `neighbours`: whether
    what the other cores did is one: not for what a GPU computes.
    """

    def passed(counter: str) -> float:
        return float(sum(getattr(after, counter) - getattr(before, counter) for before, after in spans))

    wall, own = max(passed("wall"), 1e-9), passed("own")
    machine_cores, pinned_cores = spans[-1][1].machine_cores, spans[-1][1].pinned_cores
    found: list[tuple[float, float, float, str]] = [  # (seconds, of seconds, share allowed, what happened)
        (
            # of several GPUs each has a core of its own; the only one has all of them, which others may use as well
            (passed("pinned_busy") - own) * (neighbours or pinned_cores == 1),
            wall * pinned_cores,
            FOREIGN_SHARE,
            "other processes used {share:.0%} of the cores timed on",
        ),
        (
            # where we are pinned to all of it, the line above has said so
            (passed("machine_busy") - own) * (neighbours and machine_cores > pinned_cores),
            wall * machine_cores,
            NEIGHBOUR_SHARE,
            "other processes used {share:.0%} of the machine",
        ),
        (
            passed("waiting"),
            wall * threads,
            WAITING_SHARE,
            "our threads waited for a core {share:.0%} of the time",
        ),
        (
            passed("pinned_stolen"),
            wall * pinned_cores,
            STOLEN_SHARE,
            "the hypervisor took {share:.0%} of our cores' time",
        ),
    ]
    throttles = int(passed("throttles"))
    hot = (f"heat slowed the cores timed on down {throttles} times",) if throttles else ()
    return (
        hot
        + gpu.slowdowns([(before.gpu, after.gpu) for before, after in spans], wall)
        + tuple(
            text.format(share=seconds / of)
            for seconds, of, allowed, text in found
            if seconds > allowed * of + SLACK_SECONDS
        )
    )


def _core_times() -> dict[int, tuple[float, float]]:
    """Busy and stolen seconds of every core since boot; empty where the kernel does not tell."""
    hertz = os.sysconf("SC_CLK_TCK")
    found = {}
    for line in _lines(Path("/proc/stat")):
        name, *numbers = line.split()
        if name.startswith("cpu") and name != "cpu" and len(numbers) >= 8:
            user, nice, system, _, _, interrupt, soft, stolen = (int(number) / hertz for number in numbers[:8])
            found[int(name[3:])] = (user + nice + system + interrupt + soft, stolen)
    return found


def _throttles(core: int) -> int:
    folder = Path(f"/sys/devices/system/cpu/cpu{core}/thermal_throttle")
    counts = ("".join(_lines(folder / name)) for name in ("core_throttle_count", "package_throttle_count"))
    return sum(int(count) for count in counts if count.isdigit())


def _waiting_seconds() -> float:
    """Time that the threads of this process were runnable without a core."""
    total = 0
    for path in Path("/proc/self/task").glob("*/schedstat"):
        for line in _lines(path):
            total += int(line.split()[1])
    return total / 1e9


def _lines(path: Path) -> Iterable[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # no such counter on this kernel, or a thread that has just ended
        return ()
