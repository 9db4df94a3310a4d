"""Plain text for terminals: tables and progress lines."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from nas.host.words import counted

if TYPE_CHECKING:
    from nas.data import Findings
    from nas.data.survey import Found
    from nas.training.scores import Scores

MOST_SIZES = 3  # image sizes listed in a line
WORTH_A_WORD = 0.01
"""Share of a training's time below which waiting is not mentioned."""
STARVED = 0.05
"""Share of a training's time above which the user is advised to reduce the waiting."""
REDRAW_SECONDS = 0.2  # between updates of a progress line on a terminal
TELL_SECONDS = 30.0  # between progress lines in a log
_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?%)?|-|", re.I)


@contextmanager
def answering() -> Iterator[None]:
    """Around the printing of a command's answer: a reader that stops early (`head`) is no error. The command goes on,
    and its exit status is the same.
    """
    with suppress(BrokenPipeError):
        yield


def table(rows: Sequence[Sequence[str]], header: Sequence[str]) -> str:
    """Aligned columns under a header, two spaces apart; columns of numbers (`-` for none) are aligned right."""
    assert all(len(row) == len(header) for row in rows), "every row has a cell for each column"
    columns = list(zip(header, *rows, strict=True))
    right = [all(_NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns]
    widths = [max(len(cell) for cell in column) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = zip(cells, widths, right, strict=True)
        return "  ".join(c.rjust(width) if to_right else c.ljust(width) for c, width, to_right in aligned).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *(line(row) for row in rows)])


def percent(share: float | None) -> str:
    """A share of 0..1 in percent with one decimal, without the percent sign; `-` for None."""
    return "-" if share is None else f"{100 * share:.1f}"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s` or `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def waiting(data: float | None, lane: float | None, least: float = WORTH_A_WORD) -> str:
    """`waited 7.1 % for data and 2.0 % for timings`, from shares of 0..1; shares below `least` are left out."""
    shares = ((data or 0, "data"), (lane or 0, "timings"))
    parts = [f"{percent(share)} % for {what}" for share, what in shares if share >= least]
    return f"waited {' and '.join(parts)}" if parts else ""


def waiting_advice(data: float | None, lane: float | None) -> str:
    """How to reduce a training's waiting, as a sentence; empty where it waits little."""
    advice = []
    if (data or 0) > STARVED:
        advice.append(
            f"{percent(data)} % of the training time was spent waiting for data: give each training more cores, train "
            "fewer networks at a time, or raise data.cache_gigabytes if not all images fit into memory decoded"
        )
    if (lane or 0) > STARVED:
        advice.append(
            f"{percent(lane)} % of the training time was spent waiting while networks were timed: time them on "
            "another machine, or start other measurements later"
        )
    return "; ".join(advice)


def class_table(classes: Sequence[str], scores: Scores) -> str:
    """IoU of every class and, below, the mean and the pixel accuracy, all in percent."""
    rows = [(name, percent(iou)) for name, iou in zip(classes, scores.class_iou, strict=True)]
    rows += [("mean (mIoU)", percent(scores.miou)), ("pixel accuracy", percent(scores.pixel_accuracy))]
    return table(rows, ("class", "IoU %"))


def no_waits() -> tuple[float, float]:
    """Shares of time waited for data and for timings, for work that reports no waiting."""
    return 0.0, 0.0


class ProgressLine:
    """Shows the progress of long work: one line that is overwritten on a terminal, otherwise a line every 30 s, even
    while nothing is counted.

    `tell` receives the lines where there is no terminal; without it they go to standard error. `silent`: print nothing.
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
        """Units done of the current work, or of the last."""
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
        """Report progress inside the context. `of`: units in all, 0 where they cannot be counted; `done`: units that
        were done before. `waits` gives the shares (0..1) of the time so far spent waiting for data and for timings.
        Afterwards the progress line is erased, so that others can be printed.
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
        """Erase the progress line, so that another line can be printed; the next update draws it again."""
        if self._shown:
            self._shown = False
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def count(self, more: int) -> None:
        """Add `more` units to those done."""
        with self._lock:
            self.done = min(self.done + more, self._of)
            if self._silent or not self._what:
                return
            now = self._clock()
            if now >= self._told + (REDRAW_SECONDS if sys.stderr.isatty() else self._every_seconds):
                self._show(now)

    def _go_on_telling(self, ended: threading.Event) -> None:
        """Print a line whenever `count` has printed none for `every_seconds`."""
        pause = self._every_seconds
        with suppress(OSError, ValueError):  # standard error is closed
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
    """A summary of a data set: its images and their sizes, the share of labelled pixels and the number of images of
    each class, void pixels, and notes on anything unusual.
    """
    dataset, splits = findings.dataset, findings.splits
    lines = [
        f"{name:10}  {counted(found.images, 'image')} of {_sizes(found)}; labels {_conventions(found)}"
        for name, found in splits
    ]
    header = ["value", "class", *(word for name, _ in splits for word in (f"{name} %", "images"))]
    rows = []
    for index, class_name in enumerate(dataset.classes):
        values = [str(value) for value, label in enumerate(dataset.label_map) if label == index]
        shown = ", ".join(values) if len(values) < 4 else f"{values[0]}, ..., {values[-1]}"
        cells = [(found.class_pixels[index], found.labelled_pixels, found.class_images[index]) for _, found in splits]
        numbers = [word for pixels, labelled, images in cells for word in (percent(pixels / labelled), str(images))]
        rows.append([shown, class_name, *numbers])
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
    others = f" and {counted(more, 'more size')}" if more > 0 else ""
    return f"{', '.join(shown)}{others} (HxW)"


def _conventions(found: Found) -> str:
    return ", ".join(name if len(found.conventions) == 1 else f"{name} ({count})" for name, count in found.conventions)
