"""What a training reports: plain numbers, no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Segmentation quality over a whole split, as fractions in 0..1.

    The usual (Pascal VOC / Cityscapes) definition: one confusion matrix is summed over all pixels of all
    images, void pixels left out; IoU of a class = both / (labelled + predicted - both). `miou` is the mean
    over the classes that occur in the labels or in the predictions; a class that occurs in neither has IoU
    None and does not count.
    """

    miou: float
    class_iou: tuple[float | None, ...]
    pixel_accuracy: float


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """One finished epoch. `epoch` counts from 1; `loss` is the mean over its steps; `seconds` includes the
    scoring.
    """

    epoch: int
    epochs: int
    loss: float
    scores: Scores
    seconds: float
