"""Pictures of predictions and labels for people to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Palette = Sequence[tuple[int, int, int]]

VOID_COLOUR = (0, 0, 0)


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


def side_by_side(pictures: Sequence[NDArray[np.uint8]], gap_pixels: int = 4) -> NDArray[np.uint8]:
    """Pictures of one height, (H, W, 3) each, in a row with white gaps between them, uint8 (H, sum of W, 3)."""
    assert pictures
    assert len({picture.shape[0] for picture in pictures}) == 1
    gap = np.full((pictures[0].shape[0], gap_pixels, 3), 255, dtype=np.uint8)
    row = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(row, axis=1)
