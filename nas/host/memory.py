"""How much memory there is, and networks refused before they are built because they need more.

What is needed is counted (`space.count.memory`): a lower bound, since libraries take room of their own. So what is
refused could not have been built, and what is let through may still be too much.
"""

from __future__ import annotations

import math
import os
import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from nas.host.control_groups import control_groups, text_of
from space.architecture import Architecture
from space.count import memory
from space.errors import ArchitectureError, BusyError, UserError
from space.scale import NARROWEST, bisected, scale_width

SMALLEST_INPUT = 16  # pixels of a side that is still proposed
UNLIMITED = 2**60  # bytes from which on a limit is none

Size = tuple[int, int]


def free_bytes(device: str = "cpu") -> int:
    """What this process may still take, of the machine's memory or of a GPU's (`cuda:1`), what PyTorch keeps there for
    its next tensors included.
    """
    if device != "cpu":
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return min([*_machine("MemAvailable"), *_groups(free=True), *_own_limits(free=True)], default=UNLIMITED)


def whole_bytes(device: str = "cpu") -> int:
    """What a process may take at most, if nobody else takes any."""
    if device != "cpu":
        import torch

        return int(torch.cuda.mem_get_info(device)[1])
    return min([*_machine("MemTotal"), *_groups(free=False), *_own_limits(free=False)], default=UNLIMITED)


def resident_bytes() -> int:
    """What this process has in memory."""
    return _pages()[1]


def virtual_bytes() -> int:
    """What this process has mapped, which `ulimit -v` counts."""
    return _pages()[0]


def require_inference(
    architecture: Architecture,
    size: Size,
    num_classes: int,
    *,
    device: str = "cpu",
    kind: type[UserError] = ArchitectureError,
) -> None:
    """Refuse a network that cannot be run on one image of `size` (height, width).

    Raises: `kind` with what would do, or BusyError where others hold the memory that it needs.
    """

    def needed(narrowed: Architecture, smaller: Size) -> int:
        return memory(narrowed, smaller, num_classes).inference_bytes()

    _require(architecture, size, needed, device, kind, "")


def require_training(
    architecture: Architecture, size: Size, num_classes: int, *, batch_size: int, device: str = "cpu"
) -> None:
    """Refuse a network that cannot be trained on batches of crops of `size` (height, width).

    Raises: ArchitectureError with what would do, or BusyError where others hold the memory that it needs.
    """

    def needed(narrowed: Architecture, smaller: Size) -> int:
        return memory(narrowed, smaller, num_classes).training_bytes(batch_size)

    free = free_bytes(device)
    counted = memory(architecture, size, num_classes)
    fitting = [batch for batch in range(min(batch_size, 1024), 0, -1) if counted.training_bytes(batch) <= free]
    instead = f"batches of at most {fitting[0]}, or " if fitting else ""
    _require(architecture, size, needed, device, ArchitectureError, instead, f" in batches of {batch_size}")


def _require(
    architecture: Architecture,
    size: Size,
    needed: Callable[[Architecture, Size], int],
    device: str,
    kind: type[UserError],
    instead: str,
    how: str = "",
) -> None:
    bytes_needed, free = needed(architecture, size), free_bytes(device)
    if bytes_needed <= free:
        return
    where = "of memory" if device == "cpu" else f"of {device}'s memory"
    came = (
        f"{architecture.key} at {size[0]}x{size[1]}{how}, which needs {_gigabytes(bytes_needed)} or more, with "
        f"{_gigabytes(free)} {where} free"
    )
    largest = instead + _largest(architecture, size, lambda one, other: needed(one, other) <= free)
    if bytes_needed <= whole_bytes(device):
        raise BusyError(
            f"expected a network that fits into memory, got {came}; end what else holds it, or use {largest}"
        )
    raise kind(f"expected a network that fits into memory, got {came}; use {largest}")


def _largest(architecture: Architecture, size: Size, fits: Callable[[Architecture, Size], bool]) -> str:
    """In words: the largest input of the same shape that would do, or the largest width where none does."""

    def scaled(factor: float) -> Size:
        return max(1, math.floor(size[0] * factor)), max(1, math.floor(size[1] * factor))

    smallest = min(1.0, SMALLEST_INPUT / min(size))
    if fits(architecture, scaled(smallest)):
        height, width = scaled(bisected(smallest, 1.0, lambda factor: fits(architecture, scaled(factor))))
        return f"an input of at most {height}x{width}"
    whole = replace(architecture, channels={})
    if fits(scale_width(whole, NARROWEST), size):
        share = bisected(NARROWEST, 1.0, lambda factor: fits(scale_width(whole, factor), size))
        return f"at most {share:.2f} of its width"
    return "a machine with more memory"


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count < 1e13 else f"{count / 1e12:,.0f} TB"


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
