"""The device that latencies are taken on: its cores, and models and versions as text for certificates and anchors."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from nas.latency.target import Target

BEGAN_WITH = frozenset(os.sched_getaffinity(0))
"""Cores of this process when it started, before any of its threads left some to timings. Threads and processes started
by such a thread inherit its smaller set of cores: right for its threads, wrong for a process that is to time.
"""


def pin(target: Target) -> None:
    """Pin this process to as many cores as the target has threads, one per physical core while they last.

    Raises: TargetError when fewer cores are available.
    """
    if not target.on_cuda:
        os.sched_setaffinity(0, _choose_cores(target.thread_count()))


def core_of(device: str) -> int:
    """The core that launches the work of timings on a GPU (`cuda:N`), of those that this process may use: a different
    one for each GPU while they last.
    """
    ranked = _ranked_cores()
    return ranked[int(device.partition(":")[2] or 0) % len(ranked)]


@contextlib.contextmanager
def on_core_of(device: str, gpus: int) -> Iterator[None]:
    """Run this thread, which launches the work of a GPU, on the core that trainings leave free for it
    (`leave_cores_of`), if there are several `gpus` and hence possibly trainings on the others.
    """
    if gpus < 2:
        yield
        return
    with _on({core_of(device)}):
        yield


@contextlib.contextmanager
def on_all_cores() -> Iterator[None]:
    """Run this thread on the cores that it left too, so that a process started to time inherits them all."""
    with _on(_cores()):
        yield


def leave_cores_of(devices: tuple[str, ...]) -> bool:
    """Keep this thread, and threads that it starts from now on, off the cores of timings on these GPUs. Returns whether
    it does: not if there are no such GPUs, or if this would leave less than half of the cores.
    """
    cores = _cores()
    left = {core_of(device) for device in devices}
    if not left or 2 * len(left) > len(cores):
        return False
    os.sched_setaffinity(0, cores - left)
    return True


@contextlib.contextmanager
def _on(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _cores() -> set[int]:
    """Cores that this thread may use, including those that it left to timings."""
    return os.sched_getaffinity(0) | BEGAN_WITH


def describe(target: Target) -> dict[str, str]:
    """Device, precision and threads of a target; `nas.latency.runtimes.environment` adds the versions."""
    description = {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "runtime": target.runtime,
        "precision": target.precision,
    }
    if target.on_cuda:
        description |= _gpu(target.device)
    else:
        description["threads"] = str(target.thread_count())
    return description


def _choose_cores(count: int) -> set[int]:
    return set(_ranked_cores()[:count])


def _ranked_cores() -> list[int]:
    by_physical: dict[str, list[int]] = {}
    for core in sorted(_cores()):
        siblings = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        key = siblings.read_text().strip() if siblings.exists() else str(core)
        by_physical.setdefault(key, []).append(core)
    # The first hardware thread of every physical core, then the second ones; the last cores first, since interrupts
    # gather on the first cores.
    ranked = [(rank, -core, core) for cores in by_physical.values() for rank, core in enumerate(cores)]
    return [core for _, _, core in sorted(ranked)]


def cpu_model() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    return names[0] if names else platform.machine()


def _gpu(device: str) -> dict[str, str]:
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {
        "gpu": properties.name,
        "gpu_memory_mebibytes": str(properties.total_memory // 2**20),
        "gpu_capability": f"{properties.major}.{properties.minor}",
    }
