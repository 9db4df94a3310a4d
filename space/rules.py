"""Limits that hold for every network, and helpers that raise errors for broken rules."""

from __future__ import annotations

from collections.abc import Sequence

from space.errors import ArchitectureError, nearest

WIDEST = 4096  # channels of one layer
DEEPEST = 64  # blocks of one stage
IMAGE_CHANNELS = 3


def require(condition: bool, message: str) -> None:
    """Raises: ArchitectureError with `message` unless the condition holds."""
    if not condition:
        raise ArchitectureError(message)


def require_range(name: str, value: float, low: float, high: float) -> None:
    """Raises: ArchitectureError unless `value`, called `name`, lies in `low` to `high`."""
    if not low <= value <= high:
        raise ArchitectureError(f"{name}: expected {low} to {high}, got {value}")


def require_one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raises: ArchitectureError, with the nearest known value, unless `value`, called `name`, is one of `known`."""
    if value not in known:
        raise ArchitectureError(f"{name}: expected one of {', '.join(known)}; got {value!r}; {nearest(value, known)}")
