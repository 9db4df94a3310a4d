"""Cutting windows out of arrays. Both loaders use it: NumPy copies rows of bytes as fast as any other library."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nas.data.dataset import IGNORE
from nas.data.files import nearest_indices
from nas.data.windows import PADDING, Window


def cut_image(image: NDArray[np.uint8], window: Window, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
    """The window of an image (H, W, 3), filled with the mean colour outside the image: (height, width, 3), written to
    `out` if given.
    """
    out = np.empty((window.height, window.width, 3), dtype=np.uint8) if out is None else out
    return _cut(image, window, PADDING, out)


def is_filled(label: NDArray[np.uint8], window: Window, share: float) -> bool:
    """Whether one class covers `share` or more, or all, of the labelled pixels in the window of a label (H, W)."""
    counts = np.bincount(_cut_label(label, window).ravel(), minlength=IGNORE + 1)[:IGNORE]
    return bool(counts.max() >= share * counts.sum() or np.count_nonzero(counts) < 2)


def show_label(label: NDArray[np.uint8], window: Window, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The window of a label (H, W), void outside it, resized to `size` (nearest), mirrored if the window is."""
    cut = _cut_label(label, window)
    if cut.shape != size:
        rows, columns = nearest_indices(window.height, size[0]), nearest_indices(window.width, size[1])
        cut = cut.take(rows, axis=0).take(columns, axis=1)
    return np.ascontiguousarray(cut[:, ::-1]) if window.flip else cut  # (h, w)


def _cut_label(label: NDArray[np.uint8], window: Window) -> NDArray[np.uint8]:
    return _cut(label, window, IGNORE, np.empty((window.height, window.width), dtype=np.uint8))


def _cut(
    pixels: NDArray[np.uint8], window: Window, fill: int | tuple[int, ...], out: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Copy the window of an (H, W) or (H, W, 3) array into `out`, with `fill` outside the array; returns `out`."""
    top, left = max(window.top, 0), max(window.left, 0)
    bottom = min(window.top + window.height, pixels.shape[0])
    right = min(window.left + window.width, pixels.shape[1])
    if (bottom - top, right - left) != (window.height, window.width):
        out[:] = fill
    if top < bottom and left < right:
        target = (slice(top - window.top, bottom - window.top), slice(left - window.left, right - window.left))
        out[target] = pixels[top:bottom, left:right]
    return out
