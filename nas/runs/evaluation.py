"""What an evaluation leaves: the scores and how they were come by, and the confusion matrix as numbers."""

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
CORNER = "labelled \\ predicted"  # of the CSV, above the rows' names and before the columns'
CREATOR = "nas evaluate"
MARKS: Mapping[str, str] = {
    EVALUATION: "\nweights_sha256: ",
    CONFUSION: f"{CORNER},",
    CONFUSION_CHART: f"<dc:title>{CREATOR}</dc:title>",
}
"""Text by which a file of an earlier evaluation is recognised: only such files are replaced."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores (fractions) of a trained network on a split, and how they were come by."""

    architecture: str  # its key
    weights_sha256: str
    """Of the network's weights in float32, which are what was scored where `form` does not say otherwise."""
    data: str
    split: Literal["train", "val", "test"]
    images: int
    at: Literal["input", "labels"]
    """Where labels are compared: at `size`, as training and search do, or at their own size, as benchmarks do."""
    size: tuple[int, int]
    """Height and width in pixels at which the network sees pictures."""
    scales: tuple[float, ...]
    """Multiples of `size` at which it looks."""
    flip: bool
    window: tuple[int, int] | None
    miou: float
    pixel_accuracy: float
    class_iou: Mapping[str, float | None]
    category_miou: float | None
    """None where the data set has no categories."""
    category_iou: Mapping[str, float | None]
    form: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """What was scored where that is a certified form in lower precision, as its certificate calls it, by its runtime on
    all cores; else it is the network in float32, by PyTorch.
    """
    graph_sha256: str = field(default="", metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Of the graph that was scored, model.onnx beside the certificate, where there is a `form`."""

    def __post_init__(self) -> None:
        shares = [*self.class_iou.values(), *self.category_iou.values(), self.category_miou]
        known = [self.miou, self.pixel_accuracy, *(share for share in shares if share is not None)]
        if not 0 <= min(known) <= max(known) <= 1:
            raise UserError(f"expected scores of 0 to 1, got {min(known)} to {max(known)}")


def confusion_csv(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Pixels as CSV: a row for each labelled class, a column for each predicted one, their names before and above."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([CORNER, *classes])
    writer.writerows([name, *row] for name, row in zip(classes, counts, strict=True))
    return text.getvalue()
