"""Which pictures an epoch shows, in which order: a function of seed and epoch, so that a run resumes without state.

Without class-uniform sampling each picture is shown once. With it a share of an epoch is drawn class by class: the
classes take turns, and of the pictures that hold a class each is as likely (Zhu et al., CVPR 2019, arXiv 1812.01593).
Each of these shows a window with some pixels of its class. What is left shows the pictures that it would without them,
in the same windows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.windows import CLASSES, PIXEL, order


@dataclass(frozen=True, kw_only=True)
class ClassUniform:
    """How a share of an epoch is drawn class by class."""

    share: float
    """Of the pictures of an epoch, in 0..1."""
    images: tuple[tuple[int, ...], ...]
    """Of each class, the pictures of the split that hold it (`nas.data.images_of_classes`)."""

    def __post_init__(self) -> None:
        assert 0 <= self.share <= 1, self.share
        assert any(self.images), "pictures of some class"


@dataclass(frozen=True, kw_only=True)
class Showing:
    """A picture in an epoch."""

    index: int
    """In its split."""
    number: int
    """No other showing of the epoch has it: what is drawn for this one depends on it."""
    of_class: int | None = None
    """The class that it is shown for, if any."""


def showings(count: int, class_uniform: ClassUniform | None, *, seed: int, epoch: int) -> list[Showing]:
    """An epoch of training on so many pictures."""
    shown = [Showing(index=index, number=index) for index in order(count, seed=seed, epoch=epoch).tolist()]
    if class_uniform is None:
        return shown
    generator = np.random.default_rng([CLASSES, seed, epoch])
    there = [each for each, images in enumerate(class_uniform.images) if images]
    first = int(generator.integers(len(there)))
    places = generator.permutation(count)[: round(class_uniform.share * count)].tolist()
    for turn, place in enumerate(places):
        of_class = there[(first + turn) % len(there)]
        images = class_uniform.images[of_class]
        index = images[int(generator.integers(len(images)))]
        shown[place] = Showing(index=index, number=count + place, of_class=of_class)
    return shown


def pixel_of(label: NDArray[np.uint8], of_class: int, *, seed: int, epoch: int, number: int) -> tuple[int, int] | None:
    """Row and column of a pixel of a class in a label (H, W), each as likely; None where it holds none."""
    pixels = np.flatnonzero(label == of_class)
    if not len(pixels):  # the file is no longer what it was
        return None
    row, column = divmod(int(np.random.default_rng([PIXEL, seed, epoch, number]).choice(pixels)), label.shape[1])
    return row, column
