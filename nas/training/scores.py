"""The reports of a training: plain numbers, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from space.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Segmentation quality over a whole split, as fractions in 0..1.

    The usual (Pascal VOC / Cityscapes) definition: one confusion matrix is summed over all pixels of all images, void
    pixels left out; IoU of a class = both / (labelled + predicted - both).
    """

    miou: float
    """Mean IoU over the classes that occur in the labels or in the predictions."""
    class_iou: tuple[float | None, ...]
    """One per class; None for a class that occurs in neither."""
    pixel_accuracy: float
    """Share of labelled pixels that are predicted right."""

    def __post_init__(self) -> None:
        shares = (self.miou, self.pixel_accuracy, *(iou for iou in self.class_iou if iou is not None))
        if not 0 <= min(shares) <= max(shares) <= 1:
            raise UserError(f"expected scores of 0 to 1, got {min(shares)} to {max(shares)}")


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One finished epoch."""

    epoch: int
    """Number of the epoch, from 1."""
    epochs: int
    """Number of epochs of the whole training."""
    loss: float
    """Mean loss over the epoch's steps."""
    scores: Scores | None
    """Scores on the validation images; None after an epoch that is not scored."""
    seconds: float
    """Duration of training and scoring."""
    waited_for_data: float | None = None
    """Share of `seconds` (0..1) spent waiting for batches; None in reports of earlier versions."""
    waited_for_lane: float | None = None
    """Share of `seconds` (0..1) spent waiting for the end of another process's timing; None likewise."""
    encoder: bool = False
    """Whether the epoch trained the encoder alone, under its own classifier, to which the scores belong."""

    @property
    def miou(self) -> float:
        """mIoU (0..1) after an epoch that is scored: every epoch, unless the recipe says otherwise."""
        assert self.scores is not None, f"epoch {self.epoch} is not scored"
        return self.scores.miou

    def __str__(self) -> str:
        """`epoch 2/10  loss 0.512  mIoU 41.3 %`, without the mIoU where the epoch is not scored."""
        score = "" if self.scores is None else f"  mIoU {100 * self.scores.miou:.1f} %"
        return f"epoch {self.epoch}/{self.epochs}  loss {self.loss:.3f}{score}"
