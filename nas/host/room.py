"""Available memory of the machine or a GPU, within the limits of containers and of this process, and whether an error
means that memory is short. A process that shares a GPU with other processes of this package keeps to its share.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from nas.host.control_groups import control_groups, text_of

UNLIMITED = 2**60  # bytes; a limit of at least this means no limit
SHARED = 0.9  # share of a GPU's memory that several processes divide; libraries need the rest, once per process
SHORTAGE = re.compile(
    r"^MemoryError|out of memory|can't allocate memory|cannot allocate memory(?! in static tls)|unable to allocate|"
    r"bad_alloc|cublas_status_alloc_failed|can't start new thread",
    re.I,
)
UNMAPPED = "failed to map segment from shared object"
"""Message of the loader if `ulimit -v` leaves no room for a library, but also for a library on a `noexec` disk."""


def free_bytes(device: str = "cpu") -> int:
    """Bytes that this process may still allocate in the machine's memory or in that of a GPU (`cuda:1`), including
    memory that PyTorch has reserved there.
    """
    if device != "cpu":
        import torch

        used = torch.cuda.memory_allocated(device)
        kept = torch.cuda.memory_reserved(device) - used
        return min(int(torch.cuda.mem_get_info(device)[0]) + kept, whole_bytes(device) - used)
    return min([*_machine("MemAvailable"), *_groups(free=True), *_own_limits(free=True)], default=UNLIMITED)


def whole_bytes(device: str = "cpu") -> int:
    """Bytes that a process may allocate at most, if no other process uses any."""
    if device != "cpu":
        import torch

        return int(_share_of(device) * torch.cuda.mem_get_info(device)[1])
    return min([*_machine("MemTotal"), *_groups(free=False), *_own_limits(free=False)], default=UNLIMITED)


def hold_to_share(device: str, count: int) -> None:
    """Limit this process to its share of a GPU's memory, if `count` processes share the GPU: then a process that needs
    more fails itself, instead of an arbitrary one of the others.
    """
    if device != "cpu" and count > 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(SHARED / count, torch.device(device).index)


def _share_of(device: str) -> float:
    """Share of a GPU's memory that this process may allocate, as `hold_to_share` set it; 1 if PyTorch cannot tell."""
    import torch

    fraction_of = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    return float(fraction_of(torch.device(device).index)) if fraction_of else 1.0


def is_shortage(error: BaseException) -> bool:
    """Whether an error means that memory is short, in this process or, by its message, in another one."""
    return isinstance(error, MemoryError) or bool(line_of_shortage(str(error)))


def line_of_shortage(words: str) -> str:
    """The line of an error's message, possibly a traceback, that reports a shortage of memory; empty if none does."""
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    short = (line for line in words.splitlines() if SHORTAGE.search(line) or (limited and UNMAPPED in line))
    return next((line.strip() for line in short), "")


def resident_bytes() -> int:
    """Bytes of this process that are in memory."""
    return _pages()[1]


def virtual_bytes() -> int:
    """Bytes that this process has mapped, which `ulimit -v` limits."""
    return _pages()[0]


def _machine(name: str) -> Iterator[int]:
    found = re.search(rf"^{name}: +(\d+) kB", text_of(Path("/proc/meminfo")), re.M)
    if found:
        yield 1024 * int(found[1])


def _groups(*, free: bool) -> Iterator[int]:
    """Bytes that each control group around this process allows in all, or with `free` still allows."""
    for folder, version_1 in control_groups("memory"):
        limit, used = ("limit_in_bytes", "usage_in_bytes") if version_1 else ("max", "current")
        allowed = text_of(folder / f"memory.{limit}").strip()
        if allowed.isdigit() and int(allowed) < UNLIMITED:
            taken = text_of(folder / f"memory.{used}").strip()
            yield max(0, int(allowed) - (int(taken) - _cached(folder) if free and taken.isdigit() else 0))


def _cached(group: Path) -> int:
    """Bytes of file cache in a group, which the kernel drops when memory is needed."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", text_of(group / "memory.stat"), re.M)
    return int(found[1]) if found else 0


def _own_limits(*, free: bool) -> Iterator[int]:
    """Bytes that `ulimit -v` and `ulimit -d` allow in all, or with `free` still allow."""
    for kind, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield max(0, limit - (_pages()[place] if free else 0))


def _pages() -> list[int]:
    """Sizes of this process in bytes: all, resident, shared, text, none, data (proc(5))."""
    page = os.sysconf("SC_PAGE_SIZE")
    return [int(pages) * page for pages in text_of(Path("/proc/self/statm")).split()] or [0] * 6
