"""The files of an evaluation: the scores and how they were computed, and the confusion matrix as numbers."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from space import UserError, strict

EVALUATION = "evaluation.yaml"
CONFUSION = "confusion.csv"
CONFUSION_CHART = "confusion.svg"
CORNER = "labelled \\ predicted"  # first cell of the CSV
CREATOR = "nas evaluate"
MARKS: Mapping[str, str] = {
    EVALUATION: "\nweights_sha256: ",
    CONFUSION: f"{CORNER},",
    CONFUSION_CHART: f"<dc:title>{CREATOR}</dc:title>",
}
"""Text that identifies a file of an earlier evaluation; only such files are replaced."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores (fractions) of a trained network on a split, and how they were computed."""

    architecture: str  # its key
    weights_sha256: str
    """SHA-256 of the float32 weights, which were scored unless `form` names something else."""
    data: str
    split: Literal["train", "val", "test"]
    images: int
    at: Literal["input", "labels"]
    """Size at which labels are compared: `size`, as in training and search, or their own size, as in benchmarks."""
    size: tuple[int, int]
    """Height and width in pixels of the images that the network receives."""
    scales: tuple[float, ...]
    """Multiples of `size` at which the network is run on each image."""
    flip: bool
    window: tuple[int, int] | None
    miou: float
    pixel_accuracy: float
    class_iou: Mapping[str, float | None]
    category_miou: float | None
    """None where the data set has no categories."""
    category_iou: Mapping[str, float | None]
    form: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """The certified form in lower precision that was scored, as its certificate names it, by its runtime on all cores;
    empty where the network was scored in float32 by PyTorch.
    """
    graph_sha256: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """SHA-256 of the graph that was scored, model.onnx beside the certificate, where there is a `form`."""

    def __post_init__(self) -> None:
        shares = [*self.class_iou.values(), *self.category_iou.values(), self.category_miou]
        known = [self.miou, self.pixel_accuracy, *(share for share in shares if share is not None)]
        if not 0 <= min(known) <= max(known) <= 1:
            raise UserError(f"expected scores between 0 and 1, got {min(known)} to {max(known)}")


def confusion_csv(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Pixel counts as CSV: a row for each labelled class, a column for each predicted one, with their names."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([CORNER, *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts, strict=True))
    return text.getvalue()
