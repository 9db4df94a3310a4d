"""The confusion matrix of labelled and predicted pixels, and scores from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nas.data import IGNORE
from nas.errors import DataError, TrainingError
from nas.training.scores import Scores


class ConfusionMatrix:
    """Exact pixel counts by (labelled class, predicted class), on the device of the tensors that are added."""

    def __init__(self, num_classes: int, counts: Tensor | None = None) -> None:
        """`counts`: initial counts, int64 (labelled C, predicted C)."""
        self.num_classes = num_classes
        self._counts = torch.zeros(num_classes, num_classes, dtype=torch.int64) if counts is None else counts
        self._largest = torch.tensor(0)  # largest label so far
        self._finite = torch.tensor(True)

    def look(self, logits: Tensor) -> None:
        """Note whether the logits of a prediction are finite: an arg-max turns NaN into classes too. Like `update`,
        this does not wait for a GPU; reading the counts raises the error.
        """
        self._finite = self._finite.to(logits.device) & _are_finite(logits)

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Add the pixels of a batch, without waiting for a GPU: wrong labels are reported when the counts are read.

        `predicted`: class ids; `labels`: class ids or IGNORE, which is left out; integers of equal shape, none below 0.
        """
        assert predicted.shape == labels.shape, (predicted.shape, labels.shape)
        count, void = self.num_classes**2, labels == IGNORE
        labels = labels.long().masked_fill(void, 0)
        outside = void | (labels >= self.num_classes)
        pairs = torch.where(outside, count, labels * self.num_classes + predicted).flatten()
        counts = pairs.new_zeros(count + 1).index_add_(0, pairs, pairs.new_ones(()).expand_as(pairs))
        self._counts = self._counts.to(counts.device) + counts[:-1].view(self.num_classes, self.num_classes)
        if labels.numel():
            self._largest = torch.maximum(self._largest.to(labels.device), labels.max())

    @property
    def counts(self) -> Tensor:
        """Counts of everything added so far, int64 (labelled C, predicted C).

        Raises: DataError when a label was neither a class nor IGNORE; TrainingError when a logit was not finite.
        """
        _require_finite(self._finite)
        largest = int(self._largest)
        if largest >= self.num_classes:
            raise DataError(
                f"expected labels 0..{self.num_classes - 1} or {IGNORE} (void), got {largest}; "
                "check the data set's label map"
            )
        return self._counts

    def grouped(self, groups: Sequence[int]) -> ConfusionMatrix:
        """The same pixels counted by groups of classes; `groups` holds the group of each class, from 0 on. A class
        predicted as another class of its group then counts as right.

        Raises: DataError and TrainingError as `counts` does.
        """
        assert len(groups) == self.num_classes
        counts, merged = self.counts, max(groups) + 1
        index = torch.tensor(groups, device=counts.device)
        rows = counts.new_zeros(merged, self.num_classes).index_add_(0, index, counts)
        return ConfusionMatrix(merged, rows.new_zeros(merged, merged).index_add_(1, index, rows))

    def scores(self) -> Scores:
        """Scores of everything added so far.

        Raises: DataError when no labelled pixel was added, or a label that is no class; TrainingError when a logit was
        not finite.
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


def require_finite_logits(logits: Tensor) -> None:
    """Require finite logits, of any shape; this waits for a GPU.

    Raises: TrainingError when a logit is NaN or infinite.
    """
    _require_finite(_are_finite(logits))


def _are_finite(logits: Tensor) -> Tensor:
    """Whether all logits are finite, a scalar on their device. On a CPU, taking the extremes needs a fiftieth of the
    time of `isfinite`.
    """
    low, high = torch.aminmax(logits)
    return low.isfinite() & high.isfinite()


def _require_finite(finite: Tensor) -> None:
    if not finite:
        raise TrainingError(
            "expected finite logits, got NaN or infinite numbers, which give no labels; use other weights, "
            "or train anew with a lower learning rate"
        )
