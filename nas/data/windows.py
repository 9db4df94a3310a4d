"""Random draws of augmentation: a pure function of seed, epoch and sample, so that a run resumes without state.

A Window is all that a loader needs to know about one sample; DALI and PyTorch only apply it. The order of the steps is:
cut the window out (outside the image: MEAN for the image, void for the label), resize it (bilinear with antialiasing;
nearest for the label), flip, then hue and saturation, then contrast and brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.augmentation import Augmentation
from nas.data.dataset import MEAN, STD

ORDER, WINDOW, CLASSES, PIXEL, COLOUR, ELSEWHERE = range(6)
"""First seed word of each kind of random stream, so that two kinds never coincide."""

LUMA = np.array([0.299, 0.587, 0.114])
BLUE_AND_RED = np.array([0.492 * (np.array([0, 0, 1]) - LUMA), 0.877 * (np.array([1, 0, 0]) - LUMA)])  # (2, 3)
"""The luma of RGB, and the two chroma axes (YUV, ITU-R BT.601)."""

PADDING = tuple(round(255 * value) for value in MEAN)
"""RGB values outside the image: the mean colour, so about 0 (within 0.01) once normalised."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of one image to cut out, in pixels of its file, and how to transform it."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    gain: float = 1.0
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    """value -> gain * value + offset, for RGB values in 0..1: contrast and brightness together."""
    colour: tuple[tuple[float, ...], ...] | None = None
    """Matrix (3, 3) that RGB values are multiplied by before that: hue and saturation together; None: no change."""

    @property
    def mean(self) -> tuple[float, ...]:
        """What to subtract from values 0..255 before dividing by `std`: normalisation, gain and offset in one step."""
        return tuple(255 * (mean - offset) / self.gain for mean, offset in zip(MEAN, self.offset, strict=True))

    @property
    def std(self) -> tuple[float, ...]:
        """What to divide by after subtracting `mean`."""
        return tuple(255 * std / self.gain for std in STD)


def whole(source: tuple[int, int]) -> Window:
    """The whole image, unchanged; `source` is its height and width."""
    return Window(top=0, left=0, height=source[0], width=source[1])


def draw(
    augmentation: Augmentation,
    source: tuple[int, int],
    size: tuple[int, int],
    *,
    seed: int,
    epoch: int,
    number: int,
    holding: tuple[int, int] | None = None,
    attempt: int = 0,
) -> Window:
    """The window of showing `number` in `epoch`.

    `source` is the height and width of the file, `size` those at which networks see the whole picture; crop and
    shift are in pixels of `size`. Scale 2 shows objects twice as large. A window smaller than the image lies anywhere
    inside it, a larger one anywhere around it; the shift may then move it beyond the edge. With `holding`, the row and
    column of a pixel of the file, only positions that contain this pixel are drawn. Another `attempt` gives the same
    window at another position.
    """
    # All numbers are drawn even if unused, so that switching one augmentation leaves the others unchanged.
    numbers = np.random.default_rng([WINDOW, seed, epoch, number]).random(8).tolist()
    across, down, zoom, side, light, spread, *shift = numbers
    if attempt:
        across, down = np.random.default_rng([ELSEWHERE, seed, epoch, number, attempt]).random(2).tolist()
    crop = augmentation.crop or size
    scale = _scale_factor(augmentation, zoom)
    if augmentation.fills_crop:
        scale = max(scale, crop[0] / size[0], crop[1] / size[1])
    ratio = (source[0] / size[0], source[1] / size[1])
    height, width = (max(1, round(crop[axis] / scale * ratio[axis])) for axis in (0, 1))
    pixels = augmentation.shift_pixels
    moved = [round((2 * shift[axis] - 1) * pixels * ratio[axis]) for axis in (0, 1)]
    contrast = 1 + augmentation.contrast * (2 * spread - 1)
    brightness = 1 + augmentation.brightness * (2 * light - 1)
    row, column = (None, None) if holding is None else holding
    return Window(
        top=_position(source[0], height, moved[0], down, row),
        left=_position(source[1], width, moved[1], across, column),
        height=height,
        width=width,
        flip=augmentation.flip and side < 0.5,
        gain=brightness * contrast,
        offset=tuple(brightness * (1 - contrast) * mean for mean in MEAN),
        colour=_colour(augmentation, [COLOUR, seed, epoch, number]),
    )


def order(samples: int, *, seed: int, epoch: int) -> NDArray[np.intp]:
    """The order in which an epoch of training goes through the samples."""
    return np.random.default_rng([ORDER, seed, epoch]).permutation(samples)


def _scale_factor(augmentation: Augmentation, place: float) -> float:
    """The scale factor at `place`, in 0..1, of the distribution."""
    if augmentation.scale_sampling == "listed":
        return augmentation.scale[int(place * len(augmentation.scale))]
    low, high = augmentation.scale
    match augmentation.scale_sampling:
        case "log":
            return low * float((high / low) ** place)
        case "uniform":
            return low + (high - low) * place
        case "inverse":
            return 1 / (1 / low + (1 / high - 1 / low) * place)


def _colour(augmentation: Augmentation, stream: list[int]) -> tuple[tuple[float, ...], ...] | None:
    """The matrix of a random hue and saturation; it leaves grey, and the luma of every colour, unchanged."""
    if not augmentation.saturation and not augmentation.hue_degrees:
        return None
    turn, spread = (2 * np.random.default_rng(stream).random(2) - 1).tolist()
    return turned(augmentation.hue_degrees * turn, 1 + augmentation.saturation * spread)


def turned(degrees: float, saturation: float) -> tuple[tuple[float, ...], ...]:
    """Matrix (3, 3) for RGB values that rotates colours around grey, from red to green, and multiplies their distance
    from grey by `saturation`.
    """
    angle = np.radians(degrees)
    turn = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    axes = np.vstack([LUMA, BLUE_AND_RED])
    kept = np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), turn]])
    return tuple(map(tuple, (np.linalg.inv(axes) @ kept @ axes).tolist()))


def _position(source: int, length: int, moved: int, place: float, held: int | None) -> int:
    """Start of a window of `length` along an axis: uniform inside the source, or around it if the window is longer,
    then moved; with a pixel `held`, only positions that contain it.
    """
    low, high = sorted((0, source - length))
    low, high = low + moved, high + moved
    if held is not None:
        low, high = (min(max(end, held - length + 1), held) for end in (low, high))
    return low + min(int(place * (high - low + 1)), high - low)
