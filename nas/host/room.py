"""How much memory there is: of the machine, of a GPU, and of what containers and limits leave of it to this process.
A process that shares a GPU with others of ours keeps to its share. And whether an error says that it is short.
"""

from __future__ import annotations

import os
import re
import resource
from collections.abc import Iterator
from pathlib import Path

from nas.host.control_groups import control_groups, text_of

UNLIMITED = 2**60  # bytes from which on a limit is none
SHARED = 0.9  # of a GPU's memory that several processes divide: libraries need the rest, once for each
SHORTAGE = re.compile(
    r"^MemoryError|out of memory|can't allocate memory|cannot allocate memory(?! in static tls)|unable to allocate|"
    r"bad_alloc|cublas_status_alloc_failed|can't start new thread",
    re.I,
)
UNMAPPED = "failed to map segment from shared object"
"""What the loader says where `ulimit -v` leaves no room for a library, and also of one on a disk mounted `noexec`."""


def free_bytes(device: str = "cpu") -> int:
    """What this process may still take, of the machine's memory or of a GPU's (`cuda:1`), what PyTorch keeps there for
    its next tensors included.
    """
    if device != "cpu":
        import torch

        used = torch.cuda.memory_allocated(device)
        kept = torch.cuda.memory_reserved(device) - used
        return min(int(torch.cuda.mem_get_info(device)[0]) + kept, whole_bytes(device) - used)
    return min([*_machine("MemAvailable"), *_groups(free=True), *_own_limits(free=True)], default=UNLIMITED)


def whole_bytes(device: str = "cpu") -> int:
    """What a process may take at most, if nobody else takes any."""
    if device != "cpu":
        import torch

        return int(_share_of(device) * torch.cuda.mem_get_info(device)[1])
    return min([*_machine("MemTotal"), *_groups(free=False), *_own_limits(free=False)], default=UNLIMITED)


def hold_to_share(device: str, count: int) -> None:
    """Keep this process to its share of a GPU's memory, of which `count` processes have one each: what takes more than
    that ends by itself, and not by chance one of the others.
    """
    if device != "cpu" and count > 1:
        import torch

        torch.cuda.set_per_process_memory_fraction(SHARED / count, torch.device(device).index)


def _share_of(device: str) -> float:
    """Of a GPU's memory, that this process may take: all of it, or what `hold_to_share` says, where PyTorch tells."""
    import torch

    tells = getattr(torch.cuda, "get_per_process_memory_fraction", None)
    return float(tells(torch.device(device).index)) if tells else 1.0


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory is short: this process's or, in its words, another's."""
    return isinstance(error, MemoryError) or bool(line_of_shortage(str(error)))


def line_of_shortage(words: str) -> str:
    """The line of an error's words, which may be a traceback, that says that memory is short; empty where none does."""
    limited = resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY
    short = (line for line in words.splitlines() if SHORTAGE.search(line) or (limited and UNMAPPED in line))
    return next((line.strip() for line in short), "")


def resident_bytes() -> int:
    """What this process has in memory."""
    return _pages()[1]


def virtual_bytes() -> int:
    """What this process has mapped, which `ulimit -v` counts."""
    return _pages()[0]


def _machine(name: str) -> Iterator[int]:
    found = re.search(rf"^{name}: +(\d+) kB", text_of(Path("/proc/meminfo")), re.M)
    if found:
        yield 1024 * int(found[1])


def _groups(*, free: bool) -> Iterator[int]:
    """Limits of the control groups around this process."""
    for folder, version_1 in control_groups("memory"):
        limit, used = ("limit_in_bytes", "usage_in_bytes") if version_1 else ("max", "current")
        allowed = text_of(folder / f"memory.{limit}").strip()
        if allowed.isdigit() and int(allowed) < UNLIMITED:
            taken = text_of(folder / f"memory.{used}").strip()
            yield max(0, int(allowed) - (int(taken) - _cached(folder) if free and taken.isdigit() else 0))


def _cached(group: Path) -> int:
    """Bytes of files that the kernel keeps for the group, and drops when memory is asked for."""
    found = re.search(r"^(?:total_)?inactive_file (\d+)$", text_of(group / "memory.stat"), re.M)
    return int(found[1]) if found else 0


def _own_limits(*, free: bool) -> Iterator[int]:
    """`ulimit -v` and `ulimit -d`."""
    for kind, place in ((resource.RLIMIT_AS, 0), (resource.RLIMIT_DATA, 5)):
        limit, _ = resource.getrlimit(kind)
        if limit != resource.RLIM_INFINITY:
            yield max(0, limit - (_pages()[place] if free else 0))


def _pages() -> list[int]:
    """Sizes of this process in bytes: all, resident, shared, text, none, data (proc(5))."""
    page = os.sysconf("SC_PAGE_SIZE")
    return [int(pages) * page for pages in text_of(Path("/proc/self/statm")).split()] or [0] * 6
