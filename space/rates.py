"""Dilation rates that fit into a feature map; a search offers only these."""

from __future__ import annotations

import functools

from space import blocks
from space.choices import Choice, numbers

PYRAMID = 5  # lists of this many rates are offered only to blocks with a branch per rate, not to use in turn


@functools.lru_cache(maxsize=1024)
def fit(text: str, name: str, stride: int, size: tuple[int, int]) -> bool:
    """Whether block `name` can use these rates: they match its branches, if it has any, and fit into a feature map of
    this stride, for an image of `size` (height, width).
    """
    values, block = numbers(text), blocks.kind(name)
    room = max(values) <= block.farthest * min(-(-length // stride) for length in size)
    if block.branches:
        return len(values) == block.branches and room
    return len(values) != PYRAMID and (room or values == (1,))


@functools.lru_cache(maxsize=1024)
def coarsest(name: str, rates: tuple[Choice, ...], size: tuple[int, int]) -> int:
    """The coarsest stride, up to 32, at which an encoder may end so that some of the rates fit; 0 if there is none."""
    fitting = [stride for stride in (4, 8, 16, 32) if any(fit(str(text), name, stride, size) for text in rates)]
    return max(fitting, default=0)
