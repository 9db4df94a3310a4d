"""Placement of names in a chart. All positions are in pixels with y upwards, like matplotlib's display coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from nas.report.drawing import FONT_PIXELS

LINE_PIXELS = 14.0
ChartPoint = tuple[float, float]


def shortened(words: str, longest: int) -> str:
    """`words` cut to `longest` characters."""
    return words if len(words) <= longest else words[: longest - 1] + "…"


def place_label(
    words: str, point: ChartPoint, taken: Sequence[Bbox], bounds: Bbox, *, bold: bool = False
) -> Bbox | None:
    """A box for a label beside a point that overlaps no taken box; None where there is no room.

    The nearest places are tried first (right, left, above, below and diagonally), then the same farther away.
    """
    font = FontProperties(size=FONT_PIXELS, weight="bold" if bold else "normal")
    width = text_to_path.get_text_width_height_descent(words, font, ismath=False)[0]
    corners = np.reshape([box.extents for box in taken], (-1, 4)).T  # x0, y0, x1 and y1 of all boxes
    x, y = point
    for distance in (10.0, 16.0, 24.0, 34.0, 46.0, 60.0, 76.0):
        for share, across, up in _directions(distance):
            left = x + across - share * width
            if across == 0:
                left = min(max(left, bounds.x0), bounds.x1 - width)
            box = Bbox.from_bounds(left, y + up - LINE_PIXELS / 2, width, LINE_PIXELS)
            if _holds(bounds, box) and not _overlaps(box, corners):
                return box
    return None


def _directions(distance: float) -> Iterable[tuple[float, float, float]]:
    """Places at a distance: the share of a label that lies left of its point, and its offset to the right and up."""
    slant = distance * 0.75
    if distance < 12:
        yield from ((0, distance, 0), (1, -distance, 0))
    for up in (1, -1):
        yield from ((0.5, 0, up * distance), (0, slant, up * slant), (1, -slant, up * slant))
    yield from ((share, 0, up * distance) for share in (0.2, 0.8) for up in (1, -1))


def _overlaps(box: Bbox, corners: NDArray[np.float64]) -> bool:
    x0, y0, x1, y1 = corners
    return bool(np.any((box.x0 < x1) & (x0 < box.x1) & (box.y0 < y1) & (y0 < box.y1)))


def _holds(outer: Bbox, inner: Bbox) -> bool:
    return bool(outer.x0 <= inner.x0 and outer.y0 <= inner.y0 and inner.x1 <= outer.x1 and inner.y1 <= outer.y1)


def spread(positions: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Positions moved so that neighbours are at least `apart`, in the same order, by a sweep up and one down."""
    order = sorted(range(len(positions)), key=lambda index: positions[index])
    moved = list(positions)
    floor = low
    for index in order:
        moved[index] = max(moved[index], floor)
        floor = moved[index] + apart
    ceiling = high
    for index in reversed(order):
        moved[index] = min(moved[index], ceiling)
        ceiling = moved[index] - apart
    return moved
