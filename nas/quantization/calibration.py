"""The images from which the ranges of activations are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from nas.data import Dataset, Split, make_loader
from nas.export.quantized import Image

IMAGES = 100
"""Default number of images."""


def calibration_images(dataset: Dataset, count: int = IMAGES) -> Iterator[Image]:
    """Training images (1, 3, H, W), preprocessed as for validation and spread evenly over the split.

    Raises: DataError when a file cannot be read.
    """
    split = dataset.train
    chosen = np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).round().astype(int))
    few = Split(
        images=tuple(split.images[index] for index in chosen), labels=tuple(split.labels[index] for index in chosen)
    )
    loader = make_loader(replace(dataset, validation=few), "validation", batch_size=1, augmentation=None)
    for images, _ in loader.epoch(0):
        yield images.numpy().copy()
