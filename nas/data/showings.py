"""Which pictures an epoch shows, in which order: a function of seed and epoch, so that a run resumes without state.

Without class-uniform sampling each picture is shown once. With it, a share of the epoch is drawn class by class: the
classes take turns, and all pictures that hold a class are equally likely (Zhu et al., CVPR 2019, arXiv 1812.01593).
These pictures are shown in windows that contain pixels of the class. The rest of the epoch shows the same pictures in
the same windows as without class-uniform sampling.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.data.windows import CLASSES, PIXEL, order


@dataclass(frozen=True, kw_only=True)
class ClassUniform:
    """Settings of class-uniform sampling."""

    share: float
    """Share of an epoch's pictures, in 0..1, that is drawn class by class."""
    images: tuple[tuple[int, ...], ...]
    """For each class, the pictures of the split that hold it (`nas.data.images_of_classes`)."""

    def __post_init__(self) -> None:
        assert 0 <= self.share <= 1, self.share
        assert any(self.images), "no class has pictures"


@dataclass(frozen=True, kw_only=True)
class Showing:
    """One showing of a picture in an epoch."""

    index: int
    """Index of the picture in its split."""
    number: int
    """Number of the showing, unique in its epoch; random draws for the showing depend on it."""
    of_class: int | None = None
    """The class that the picture is shown for, if any."""


def showings(count: int, class_uniform: ClassUniform | None, *, seed: int, epoch: int) -> list[Showing]:
    """The showings of an epoch of training on `count` pictures."""
    shown = [Showing(index=index, number=index) for index in order(count, seed=seed, epoch=epoch).tolist()]
    if class_uniform is None:
        return shown
    generator = np.random.default_rng([CLASSES, seed, epoch])
    present = [each for each, images in enumerate(class_uniform.images) if images]
    first = int(generator.integers(len(present)))
    places = generator.permutation(count)[: round(class_uniform.share * count)].tolist()
    for turn, place in enumerate(places):
        of_class = present[(first + turn) % len(present)]
        images = class_uniform.images[of_class]
        index = images[int(generator.integers(len(images)))]
        shown[place] = Showing(index=index, number=count + place, of_class=of_class)
    return shown


def pixel_of(label: NDArray[np.uint8], of_class: int, *, seed: int, epoch: int, number: int) -> tuple[int, int] | None:
    """Row and column of a random pixel of a class in a label (H, W), all equally likely; None if there is none."""
    pixels = np.flatnonzero(label == of_class)
    if not len(pixels):  # the file has changed since its classes were counted
        return None
    row, column = divmod(int(np.random.default_rng([PIXEL, seed, epoch, number]).choice(pixels)), label.shape[1])
    return row, column
