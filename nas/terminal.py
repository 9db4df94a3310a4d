"""Plain text for terminals: tables, and how far long work is."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nas.data import Findings
    from nas.data.survey import Found
    from nas.training.scores import Scores

MOST_SIZES = 3  # of images, in a line
WORTH_A_WORD = 0.01
"""Share of a training's time below which waiting is not spoken of."""
STARVED = 0.05
"""The share from which on something should be done about it."""
REDRAW_SECONDS = 0.2  # of a line that is written over
TELL_SECONDS = 30.0  # between lines where none can be written over
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


def waiting(data: float | None, lane: float | None) -> str:
    """`waited 7.1 % for data and 2.0 % for timings`, of shares 0..1; less, or nothing, where there is little."""
    shares = ((data or 0, "data"), (lane or 0, "timings"))
    told = [f"{percent(share)} % for {what}" for share, what in shares if share >= WORTH_A_WORD]
    return f"waited {' and '.join(told)}" if told else ""


def waiting_advice(data: float | None, lane: float | None) -> str:
    """What to do about a training that waits, as a sentence; empty where it does not for long."""
    told = []
    if (data or 0) > STARVED:
        told.append(
            f"{percent(data)} % of the time of training was spent waiting for data: give a training more cores, train "
            "fewer networks at a time, or raise data.cache_gigabytes if not all pictures are kept decoded"
        )
    if (lane or 0) > STARVED:
        told.append(
            f"{percent(lane)} % of the time of training was spent waiting while networks were timed: time them on "
            "another machine, or start other measurements later"
        )
    return "; ".join(told)


def class_table(classes: Sequence[str], scores: Scores) -> str:
    """IoU of every class, and below it the mean and the pixel accuracy, all in percent."""
    rows = [(name, percent(iou)) for name, iou in zip(classes, scores.class_iou, strict=True)]
    rows += [("mean (mIoU)", percent(scores.miou)), ("pixel accuracy", percent(scores.pixel_accuracy))]
    return table(rows, ("class", "IoU %"))


class Progress:
    """How far work in steps is, on standard error: one line that is written over on a terminal, else one every 30 s.

    `silent`: for callers who want no words.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, silent: bool = False) -> None:
        self._silent = silent
        self._clock = clock
        self._what = ""
        self._images = self._of = 0
        self._began = self._told = 0.0
        self._shown = False

    @contextmanager
    def over(self, what: str, images: int) -> Iterator[None]:
        """Inside, so many images are worked on. Afterwards the line that was written over is gone, so that others can
        be printed.
        """
        self._what, self._images, self._of = what, 0, images
        self._began = self._told = self._clock()
        try:
            yield
        finally:
            if self._shown:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._what, self._shown = "", False

    def count(self, images: int) -> None:
        """So many more images are done."""
        self._images = min(self._images + images, self._of)
        now, terminal = self._clock(), sys.stderr.isatty()
        soon = self._told + (REDRAW_SECONDS if terminal else TELL_SECONDS)
        if self._silent or not (self._what and self._images) or now < soon:
            return
        self._told = now
        rate = self._images / max(now - self._began, 1e-9)
        left = duration((self._of - self._images) / rate)
        words = f"{self._what}: {self._images} of {self._of} images, {rate:.3g} images/s, {left} left"
        if terminal:
            print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)
        else:
            print(words, file=sys.stderr, flush=True)
        self._shown = terminal


def data_table(findings: Findings) -> str:
    """What a data set holds: images, their sizes, each class with its share of the labelled pixels and the images that
    hold it, void, and in sentences what is odd.
    """
    dataset, splits = findings.dataset, findings.splits
    lines = [
        f"{name:10}  {found.images} images of {_sizes(found)}; labels {_conventions(found)}" for name, found in splits
    ]
    header = ["value", "class", *(word for name, _ in splits for word in (f"{name} %", "images"))]
    rows = []
    for index, class_name in enumerate(dataset.classes):
        values = [str(value) for value, label in enumerate(dataset.label_map) if label == index]
        shown = ", ".join(values) if len(values) < 4 else f"{values[0]}, ..., {values[-1]}"
        cells = [(found.class_pixels[index], found.labelled_pixels, found.class_images[index]) for _, found in splits]
        told = [word for pixels, labelled, images in cells for word in (percent(pixels / labelled), str(images))]
        rows.append([shown, class_name, *told])
    void = [
        word
        for _, found in splits
        for word in (percent(found.void_pixels / (found.void_pixels + found.labelled_pixels)), "")
    ]
    rows.append(["", "void, of all pixels", *void])
    notes = [f"note: {note}" for note in findings.notes]
    return "\n".join([*lines, "", table(rows, header), *([""] if notes else []), *notes])


def _sizes(found: Found) -> str:
    shown = [f"{height}x{width}" for (height, width), _ in found.sizes[:MOST_SIZES]]
    more = len(found.sizes) - MOST_SIZES
    return f"{', '.join(shown)}{f' and {more} more sizes' if more > 0 else ''} (HxW)"


def _conventions(found: Found) -> str:
    return ", ".join(name if len(found.conventions) == 1 else f"{name} ({count})" for name, count in found.conventions)
