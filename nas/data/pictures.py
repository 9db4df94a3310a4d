"""Rendering predictions and labels for people to look at."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Palette = Sequence[tuple[int, int, int]]

GOLDEN_RATIO = 0.618033988749895


def distinct_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """RGB colours (0..255) that people can tell apart."""
    return tuple(_distinct_colour(index) for index in range(count))


def overlay(
    image: NDArray[np.uint8], label: NDArray[np.uint8], palette: Palette, opacity: float = 0.5
) -> NDArray[np.uint8]:
    """The image (H, W, 3) blended with the colours of its label (H, W), uint8 (H, W, 3); void pixels keep the image."""
    assert image.shape == (*label.shape, 3)
    assert 0 <= opacity <= 1
    # Tables of every value under every class (and, in the last row, under void): quicker than computing each pixel.
    values = np.arange(256)[None, None]  # (1, 1, 256)
    classes = np.asarray(palette, dtype=np.uint8).reshape(-1, 3).T[..., None]  # (3, classes, 1)
    mixed = np.rint((1 - opacity) * values + opacity * classes)
    tables = np.append(mixed, np.broadcast_to(values, (3, 1, 256)), axis=1).astype(np.uint8)
    rows = 256 * np.minimum(label, len(palette)).astype(np.intp)
    painted = np.empty_like(image)
    for channel in range(3):
        painted[..., channel] = tables[channel].take(rows + image[..., channel])
    return painted


def _distinct_colour(index: int) -> tuple[int, int, int]:
    hue, value = (index * GOLDEN_RATIO) % 1.0, (0.9, 0.65, 0.45)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75, value)
    return round(red * 255), round(green * 255), round(blue * 255)
