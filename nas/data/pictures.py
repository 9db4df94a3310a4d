"""Pictures of predictions and labels for people to look at."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Palette = Sequence[tuple[int, int, int]]

VOID_COLOUR = (0, 0, 0)
GOLDEN_RATIO = 0.618033988749895


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """RGB colours (0..255) that people tell apart."""
    return tuple(_distinct_colour(index) for index in range(count))


def colours(label: NDArray[np.uint8], palette: Palette) -> NDArray[np.uint8]:
    """A label (H, W) in the colours of its classes, uint8 (H, W, 3); void is black."""
    table = np.full((256, 3), VOID_COLOUR, dtype=np.uint8)
    table[: len(palette)] = np.asarray(palette, dtype=np.uint8).reshape(-1, 3)
    return table[label]


def overlay(
    image: NDArray[np.uint8], label: NDArray[np.uint8], palette: Palette, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """The image (H, W, 3) under the colours of its label (H, W); void leaves the image as it is. uint8 (H, W, 3)."""
    assert image.shape == (*label.shape, 3)
    assert 0 <= opacity <= 1
    mixed = (1 - opacity) * image + opacity * colours(label, palette)
    known = (label < len(palette))[..., None]
    return np.where(known, np.rint(mixed), image).astype(np.uint8)


def _distinct_colour(index: int) -> tuple[int, int, int]:
    hue, value = (index * GOLDEN_RATIO) % 1.0, (0.9, 0.65, 0.45)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)
