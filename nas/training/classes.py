"""What a training needs to know about the classes in its labels: their loss weights, and the images that hold them."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.data import ClassUniform, Dataset, class_pixels, images_of_classes, shares_of
from nas.training.batch_loop import Guard
from nas.training.loss import class_weights
from nas.training.recipe import Recipe


class LabelledClasses:
    """The classes in the train split of a data set. Its labels are read once, when a recipe first needs them."""

    def __init__(self, dataset: Dataset, guard: Guard) -> None:
        self._dataset = dataset
        self._guard = guard

    @functools.cached_property
    def _pixels(self) -> NDArray[np.int64]:
        return class_pixels(self._dataset, self._guard)  # (images, C)

    def weights(self, recipe: Recipe, device: torch.device) -> Tensor | None:
        """Weight of each class in the loss, (C,); None if all weigh the same.

        Raises: DataError as `nas.data.class_pixels` does.
        """
        if recipe.class_weighting is None:
            return None
        return class_weights(shares_of(self._pixels).tolist(), recipe.class_weighting).to(device)

    def uniform(self, recipe: Recipe) -> ClassUniform | None:
        """Settings of class-uniform sampling; None if the recipe does not use it.

        Raises: DataError as `nas.data.class_pixels` does.
        """
        if not recipe.class_uniform:
            return None
        return ClassUniform(share=recipe.class_uniform, images=images_of_classes(self._pixels))
