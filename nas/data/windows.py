"""Where augmentation is drawn: a pure function of seed, epoch and sample, so that a run resumes without state.

A Window is all that a loader needs to know about one sample; DALI and PyTorch only carry it out. The order of the
steps is: cut the window out (outside the image: MEAN for the image, void for the label), resize it (bilinear with
antialiasing; nearest for the label), flip, then hue and saturation, then contrast and brightness.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.augmentation import Augmentation
from nas.data.dataset import MEAN, STD

ORDER, WINDOW, CLASSES, PIXEL, COLOUR, ELSEWHERE = range(6)
"""First words of the kinds of random streams, so that they never coincide."""

LUMA = np.array([0.299, 0.587, 0.114])
BLUE_AND_RED = np.array([0.492 * (np.array([0, 0, 1]) - LUMA), 0.877 * (np.array([1, 0, 0]) - LUMA)])  # (2, 3)
"""Luma of RGB, and the two axes of colour beside it (YUV, ITU-R BT.601)."""

PADDING = tuple(round(255 * value) for value in MEAN)
"""Grey values outside the image: the mean colour, so about 0 (within 0.01) once normalised."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What is cut out of one image, in pixels of its file, and what happens to it."""

    top: int
    left: int
    height: int
    width: int
    flip: bool = False
    gain: float = 1.0
    offset: tuple[float, ...] = (0.0, 0.0, 0.0)
    """value -> gain * value + offset, for RGB values in 0..1: contrast and brightness together."""
    colour: tuple[tuple[float, ...], ...] | None = None
    """The matrix (3, 3) that RGB values are multiplied by before: hue and saturation together; None leaves them."""

    @property
    def mean(self) -> tuple[float, ...]:
        """What to subtract from grey values 0..255 before dividing by `std`: normalisation and colour in one step."""
        return tuple(255 * (mean - offset) / self.gain for mean, offset in zip(MEAN, self.offset, strict=True))

    @property
    def std(self) -> tuple[float, ...]:
        """What to divide by after subtracting `mean`."""
        return tuple(255 * std / self.gain for std in STD)


def whole(source: tuple[int, int]) -> Window:
    """The image as it is; `source` is its height and width."""
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
    shift count in pixels of `size`. Scale 2 shows things twice as large. A window smaller than the image lies
    anywhere inside it; a larger one contains it anywhere; the shift may then push it over the edge. One that is
    `holding` a pixel of the file, its row and column, lies anywhere of that where it does. Another `attempt` is the
    same elsewhere.
    """
    # All numbers are drawn whatever is used, so that switching one augmentation leaves the others as they were.
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
    """That of a place in 0..1 of all that may be drawn."""
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
    """The matrix of a hue and a saturation that are drawn; it leaves grey and every luma as they are."""
    if not augmentation.saturation and not augmentation.hue_degrees:
        return None
    turn, spread = (2 * np.random.default_rng(stream).random(2) - 1).tolist()
    return turned(augmentation.hue_degrees * turn, 1 + augmentation.saturation * spread)


def turned(degrees: float, saturation: float) -> tuple[tuple[float, ...], ...]:
    """The matrix (3, 3) for RGB values that turns colours around grey, from red to green, and multiplies their distance
    from it.
    """
    angle = np.radians(degrees)
    turn = saturation * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    axes = np.vstack([LUMA, BLUE_AND_RED])
    kept = np.block([[np.ones((1, 1)), np.zeros((1, 2))], [np.zeros((2, 1)), turn]])
    return tuple(map(tuple, (np.linalg.inv(axes) @ kept @ axes).tolist()))


def _position(source: int, length: int, moved: int, place: float, held: int | None) -> int:
    """Where a window of a length begins along an axis: equally likely anywhere in the source, or around it where it is
    longer, then moved; with a pixel that is held, only where it has that.
    """
    low, high = sorted((0, source - length))
    low, high = low + moved, high + moved
    if held is not None:
        low, high = (min(max(end, held - length + 1), held) for end in (low, high))
    return low + min(int(place * (high - low + 1)), high - low)
