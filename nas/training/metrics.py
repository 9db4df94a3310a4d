"""Counting right and wrong pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.data import IGNORE
from nas.training.scores import Scores
from space.errors import DataError


class ConfusionMatrix:
    """Pixel counts by (labelled class, predicted class), exact int64, on the device of what it is given."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)  # (labelled C, predicted C)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Add the pixels of a batch.

        `predicted`: class ids; `labels`: class ids or IGNORE, which is left out; integers of one shape.

        Raises: DataError when an id is neither a class nor IGNORE.
        """
        assert predicted.shape == labels.shape, (predicted.shape, labels.shape)
        known = labels != IGNORE
        pairs = labels[known].long() * self.num_classes + predicted[known].long()
        counts = torch.bincount(pairs, minlength=self.num_classes**2)
        if counts.numel() > self.num_classes**2:
            raise DataError(
                f"expected labels 0..{self.num_classes - 1} or {IGNORE} (void), "
                f"got {int(labels[known].max())}; check the data set's label map"
            )
        self.counts = self.counts.to(counts.device) + counts.view(self.num_classes, self.num_classes)

    def grouped(self, groups: Sequence[int]) -> ConfusionMatrix:
        """The same pixels by group: `groups` has that of each class, from 0 on. A class taken for another one of its
        group is right then.
        """
        assert len(groups) == self.num_classes
        merged = ConfusionMatrix(max(groups) + 1)
        index = torch.tensor(groups, device=self.counts.device)
        rows = self.counts.new_zeros(merged.num_classes, self.num_classes).index_add_(0, index, self.counts)
        merged.counts = rows.new_zeros(merged.num_classes, merged.num_classes).index_add_(1, index, rows)
        return merged

    def scores(self) -> Scores:
        """Scores of everything added so far.

        Raises: DataError when no labelled pixel was added.
        """
        counts = self.counts.cpu().double()
        both = counts.diag()
        either = counts.sum(0) + counts.sum(1) - both
        present = either > 0
        if not present.any():
            raise DataError("expected labelled pixels to score on, got only void; check the labels of this split")
        iou = both / either.clamp(min=1)
        return Scores(
            miou=float(iou[present].mean()),
            class_iou=tuple(
                value if seen else None for value, seen in zip(iou.tolist(), present.tolist(), strict=True)
            ),
            pixel_accuracy=float(both.sum() / counts.sum()),
        )
