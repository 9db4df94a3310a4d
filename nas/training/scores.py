"""What a training reports: plain numbers, no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Segmentation quality over a whole split, as fractions in 0..1.

    The usual (Pascal VOC / Cityscapes) definition: one confusion matrix is summed over all pixels of all images, void
    pixels left out; IoU of a class = both / (labelled + predicted - both).
    """

    miou: float
    """The mean over the classes that occur in the labels or in the predictions."""
    class_iou: tuple[float | None, ...]
    """One per class; None for a class that occurs in neither."""
    pixel_accuracy: float
    """The share of labelled pixels that are predicted right."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One finished epoch."""

    epoch: int
    """Counts from 1."""
    epochs: int
    """Of the whole training."""
    loss: float
    """The mean over the epoch's steps."""
    scores: Scores
    """On the validation images."""
    seconds: float
    """Of training and scoring."""
