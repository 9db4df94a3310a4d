"""Plain text for terminals: tables, and how far long work is."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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


@contextmanager
def answering() -> Iterator[None]:
    """Where a command prints what it was asked for: whoever stops reading there (`head`) has seen enough, and what the
    command does afterwards, and its verdict, are what they would be.
    """
    with suppress(BrokenPipeError):
        yield


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


def waiting(data: float | None, lane: float | None, least: float = WORTH_A_WORD) -> str:
    """`waited 7.1 % for data and 2.0 % for timings`, of shares 0..1; those below `least` are left out."""
    shares = ((data or 0, "data"), (lane or 0, "timings"))
    told = [f"{percent(share)} % for {what}" for share, what in shares if share >= least]
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


def no_waits() -> tuple[float, float]:
    """Of work that waits for nothing that would be told."""
    return 0.0, 0.0


class Progress:
    """How far long work is: one line that is written over on a terminal, else one every 30 s, also while nothing is
    counted.

    `tell` hears the lines of a log; without it they go to standard error. `silent`: for callers who want no words.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        silent: bool = False,
        tell: Callable[[str], None] | None = None,
        every_seconds: float = TELL_SECONDS,
    ) -> None:
        self.done = 0
        """Of the work under way, or the last."""
        self._silent = silent
        self._clock = clock
        self._tell = tell
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._what = self._unit = ""
        self._of = self._before = 0
        self._began = self._told = 0.0
        self._waits = no_waits
        self._shown = False

    @contextmanager
    def over(
        self,
        what: str,
        of: int,
        *,
        unit: str = "images",
        done: int = 0,
        waits: Callable[[], tuple[float, float]] = no_waits,
    ) -> Iterator[None]:
        """Inside, so many are worked on, of which so many are `done` before; 0 of work that cannot be counted. `waits`
        gives the shares (0..1) of the time so far that were waited for data and for timings. Afterwards the line that
        was written over is gone, so that others can be printed, and nothing more is told.
        """
        self._what, self._of, self._unit, self._waits = what, of, unit, waits
        self.done = self._before = done
        self._began = self._told = self._clock()
        if self._silent:
            yield
            return
        if sys.stderr.isatty():
            self._show(self._began)
        ended = threading.Event()
        speaker = threading.Thread(target=self._go_on_telling, args=(ended,), name="progress", daemon=True)
        speaker.start()
        try:
            yield
        finally:
            ended.set()
            speaker.join()
            self.clear()
            self._what = ""

    def clear(self) -> None:
        """Take away the line that is written over, so that another one can be printed; it comes again."""
        if self._shown:
            self._shown = False
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def count(self, more: int) -> None:
        """So many more are done."""
        with self._lock:
            self.done = min(self.done + more, self._of)
            if self._silent or not self._what:
                return
            now = self._clock()
            if now >= self._told + (REDRAW_SECONDS if sys.stderr.isatty() else self._every_seconds):
                self._show(now)

    def _go_on_telling(self, ended: threading.Event) -> None:
        """Speak where `count` has not for long."""
        pause = self._every_seconds
        with suppress(OSError, ValueError):  # nobody is there to read it
            while not ended.wait(pause):
                with self._lock:
                    now = self._clock()
                    if now >= self._told + self._every_seconds:
                        self._show(now)
                    pause = self._told + self._every_seconds - now

    def _show(self, now: float) -> None:
        self._told = now
        self._shown = sys.stderr.isatty()
        if self._shown:
            print(f"\r\x1b[K{self._words(now)}", end="", file=sys.stderr, flush=True)
        elif self._tell is not None:
            self._tell(self._words(now))
        else:
            print(self._words(now), file=sys.stderr, flush=True)

    def _words(self, now: float) -> str:
        seconds = now - self._began
        done = f": {self.done} of {self._of} {self._unit}" if self._of else ""
        waits = waiting(*self._waits())
        waits = f"{waits and ', '}{waits}"
        if self.done == self._before:
            pace = f" in {duration(seconds)}" if self._of else f": {duration(seconds)} so far"
            return f"{self._what}{done}{pace}{waits}"
        rate = (self.done - self._before) / max(seconds, 1e-9)
        left = duration((self._of - self.done) / rate)
        return f"{self._what}{done}, {rate:.3g} {self._unit}/s{waits}, {left} left"


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
