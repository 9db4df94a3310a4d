"""Refusal of networks that need more memory than there is, before they are built.

The memory needed is counted by `space.count.memory`. It is a lower bound, since libraries take memory of their own: a
network that is refused could not have been built, and one that is accepted may still be too large.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from nas.errors import BusyError
from nas.host.room import free_bytes, whole_bytes
from space.architecture import Architecture
from space.count import memory
from space.errors import ArchitectureError, UserError
from space.scale import NARROWEST, bisected, scale_width

SMALLEST_INPUT = 16  # shortest side, in pixels, of an input that is proposed instead

Size = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Room:
    """Memory of another host, as reported by it."""

    host: str
    free_bytes: int
    whole_bytes: int
    """Memory that would be free if no other process used any."""


def require_inference(
    architecture: Architecture,
    size: Size,
    num_classes: int,
    *,
    device: str = "cpu",
    kind: type[UserError] = ArchitectureError,
    there: Room | None = None,
    how: str = "",
) -> None:
    """Refuse a network that has too little memory to run on one image of `size` (height, width), on a device of this
    machine or on the CPU of the host `there`. `how`: words about the purpose, for the message.

    Raises: `kind`, proposing what would fit; BusyError when other processes hold the memory that it needs.
    """

    def needed(narrowed: Architecture, smaller: Size) -> int:
        return memory(narrowed, smaller, num_classes).inference_bytes()

    _require(architecture, size, needed, device, kind, "", how, there)


def images_at_once(architecture: Architecture, size: Size, num_classes: int, *, most: int, device: str = "cpu") -> int:
    """Number of images of `size` (height, width), at most `most`, that the free memory allows in one batch. At least 1:
    `require_inference` checks whether a single image fits.
    """
    return fitting_batch(memory(architecture, size, num_classes).inference_bytes, most, device) or 1


def require_training(
    architecture: Architecture,
    size: Size,
    num_classes: int,
    *,
    batch_size: int,
    device: str = "cpu",
    encoder: bool = False,
) -> None:
    """Refuse a network that has too little memory to be trained on batches of crops of `size` (height, width). With
    `encoder`, only the encoder is trained.

    Raises: ArchitectureError, proposing what would fit; BusyError when other processes hold the memory that it needs.
    """

    def needed(narrowed: Architecture, smaller: Size) -> int:
        return memory(narrowed, smaller, num_classes, encoder=encoder).training_bytes(batch_size)

    counted = memory(architecture, size, num_classes, encoder=encoder)
    fitting = fitting_batch(counted.training_bytes, min(batch_size, 1024), device)
    instead = f"batches of at most {fitting}, or " if fitting else ""
    how = f" in batches of {batch_size}{' in the stage of its encoder' if encoder else ''}"
    _require(architecture, size, needed, device, ArchitectureError, instead, how)


def fitting_batch(needed: Callable[[int], int], most: int, device: str) -> int:
    """The largest batch of at most `most` images that fits into the free memory of a device; 0 if none does."""
    free = free_bytes(device)
    return next((batch for batch in range(most, 0, -1) if needed(batch) <= free), 0)


def _require(
    architecture: Architecture,
    size: Size,
    needed: Callable[[Architecture, Size], int],
    device: str,
    kind: type[UserError],
    instead: str,
    how: str = "",
    there: Room | None = None,
) -> None:
    bytes_needed, free = needed(architecture, size), there.free_bytes if there else free_bytes(device)
    if bytes_needed <= free:
        return
    owner = there.host if there else device
    where = "of memory" if owner == "cpu" else f"of {owner}'s memory"
    got = (
        f"{architecture.key} at {size[0]}x{size[1]}{how}, which needs {_gigabytes(bytes_needed)} or more, with "
        f"{_gigabytes(free)} {where} free"
    )
    largest = instead + _largest(architecture, size, lambda one, other: needed(one, other) <= free)
    if bytes_needed <= (there.whole_bytes if there else whole_bytes(device)):
        raise BusyError(
            f"expected a network that fits into memory, got {got}; end other processes that hold it, or use {largest}"
        )
    raise kind(f"expected a network that fits into memory, got {got}; use {largest}")


def _largest(architecture: Architecture, size: Size, fits: Callable[[Architecture, Size], bool]) -> str:
    """In words: the largest input of the same shape that fits, or the largest width if no input does."""

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
