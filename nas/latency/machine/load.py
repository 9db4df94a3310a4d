"""Other activity on the machine during a measurement: other processes, waits for a core, stolen time, heat. No root.

Everything is read from /proc and /sys before and after. The kernel counts the time of the whole machine in steps of
10 ms, so short measurements are allowed a few steps of slack. Counters that the machine lacks report no disturbance.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.host.words import counted
from nas.latency.machine import gpu
from nas.latency.machine.gpu import UNSEEN, GpuState

# What is tolerated, as a share of the time
FOREIGN_SHARE = 0.10  # other processes on the cores that this process is pinned to
NEIGHBOUR_SHARE = 0.25  # other processes on all cores, which share memory bandwidth and the power that sets the clock
WAITING_SHARE = 0.05  # our threads without a core
STOLEN_SHARE = 0.02  # the hypervisor on the cores that this process is pinned to
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
    """Busy time of the cores that this process is pinned to."""
    pinned_stolen: float
    """Time that a hypervisor took from these cores."""
    machine_busy: float
    """Busy time of all cores."""
    machine_cores: int
    pinned_cores: int
    throttles: int = 0
    """How often heat throttled the cores that this process is pinned to."""
    gpu: GpuState = UNSEEN


Span = tuple[Snapshot, Snapshot]
"""Counters before and after a timing."""


def snapshot(device: str = "cpu") -> Snapshot:
    """The counters now, including those of `device` if it is a GPU."""
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
    """Reasons to distrust what a process with `threads` busy threads timed during `spans`. `neighbours`: whether
    activity on other cores is a reason, which it is not for work of a GPU.
    """

    def passed(counter: str) -> float:
        return float(sum(getattr(after, counter) - getattr(before, counter) for before, after in spans))

    wall, own = max(passed("wall"), 1e-9), passed("own")
    machine_cores, pinned_cores = spans[-1][1].machine_cores, spans[-1][1].pinned_cores
    found: list[tuple[float, float, float, str]] = [  # (seconds, of seconds, share allowed, what happened)
        (
            # With several GPUs each has its own core; a single GPU has all of them, and other processes may use them.
            (passed("pinned_busy") - own) * (neighbours or pinned_cores == 1),
            wall * pinned_cores,
            FOREIGN_SHARE,
            "other processes used {share:.0%} of the timed cores",
        ),
        (
            # If we are pinned to all cores, the entry above covers the machine.
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
    hot = (f"heat throttled the timed cores {counted(throttles, 'time')}",) if throttles else ()
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
    """Busy and stolen seconds of every core since boot; empty if the kernel does not report them."""
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
    """Seconds that threads of this process were runnable without a core."""
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
