"""Dilation rates that a feature map has room for: what a search offers."""

from __future__ import annotations

import functools

from space import blocks
from space.choices import Choice, numbers

PYRAMID = 5  # rates that only a pyramid of branches takes: so many in turn were never offered


@functools.lru_cache(maxsize=1024)
def fit(text: str, name: str, stride: int, size: tuple[int, int]) -> bool:
    """Whether the block `name` has as many branches as there are rates, and a feature map of this stride, of an image
    of `size` (height, width), room for them.
    """
    values, block = numbers(text), blocks.kind(name)
    room = max(values) <= block.farthest * min(-(-length // stride) for length in size)
    if block.branches:
        return len(values) == block.branches and room
    return len(values) != PYRAMID and (room or values == (1,))


@functools.lru_cache(maxsize=1024)
def coarsest(name: str, rates: tuple[Choice, ...], size: tuple[int, int]) -> int:
    """The coarsest stride of an encoder's end at which the block has room for some rates; 0 where there is none."""
    fitting = [stride for stride in (4, 8, 16, 32) if any(fit(str(text), name, stride, size) for text in rates)]
    return max(fitting, default=0)
