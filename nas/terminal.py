"""Plain text tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.training.scores import Scores

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?%)?|-|", re.I)


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Lines of columns under a header, two spaces apart; columns of numbers (`-` for none) are aligned right."""
    assert all(len(row) == len(header) for row in rows), "every row has a cell for each column"
    columns = list(zip(header, *rows, strict=True))
    right = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    widths = [max(len(cell) for cell in column) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = zip(cells, widths, right, strict=True)
        return "  ".join(c.rjust(width) if to_right else c.ljust(width) for c, width, to_right in aligned).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def percent(share: float | None) -> str:
    """A share of 0..1 with one decimal, without the sign; `-` for none."""
    return "-" if share is None else f"{100 * share:.1f}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def class_table(classes: Sequence[str], scores: Scores) -> str:
    """IoU of every class, and below it the mean and the pixel accuracy, all in percent."""
    rows = [(name, percent(iou)) for name, iou in zip(classes, scores.class_iou, strict=True)]
    rows += [("mean (mIoU)", percent(scores.miou)), ("pixel accuracy", percent(scores.pixel_accuracy))]
    return table(rows, ("class", "IoU %"))
