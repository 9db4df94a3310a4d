"""Plain text tables, and the progress of long work."""

from __future__ import annotations

import io
import itertools
import queue
import re
import threading

import pytest

from nas.terminal import ProgressLine, class_table, duration, percent, table, waiting, waiting_advice
from nas.training.scores import Scores


def test_numbers_are_aligned_right_and_words_left():
    text = table([("road", "9.5", "1,024"), ("pole", "-", "7"), ("a long name", "100.0", "12")], ("class", "IoU", "n"))
    assert text.splitlines() == [
        "class          IoU      n",
        "-----------  -----  -----",
        "road           9.5  1,024",
        "pole             -      7",
        "a long name  100.0     12",
    ]


def test_a_class_that_does_not_occur_has_a_dash():
    scores = Scores(miou=0.5, class_iou=(0.5, None), pixel_accuracy=0.75)
    rows = [line.split() for line in class_table(("road", "pole"), scores).splitlines()[2:]]
    assert rows == [["road", "50.0"], ["pole", "-"], ["mean", "(mIoU)", "50.0"], ["pixel", "accuracy", "75.0"]]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (60, "1 min 00 s"), (3599, "59 min 59 s"), (7500, "2 h 05 min")]
)
def test_durations_are_printed_in_suitable_units(seconds, text):
    assert duration(seconds) == text


def test_shares_are_printed_in_percent():
    assert (percent(0.1234), percent(None)) == ("12.3", "-")


@pytest.mark.parametrize(
    ("data", "lane", "text"),
    [
        (None, None, ""),
        (0.004, 0.0, ""),
        (0.071, 0.0, "waited 7.1 % for data"),
        (0.0, 0.3, "waited 30.0 % for timings"),
        (0.071, 0.02, "waited 7.1 % for data and 2.0 % for timings"),
    ],
)
def test_shares_of_waiting_are_printed_when_there_are_any(data, lane, text):
    assert waiting(data, lane) == text


def test_waiting_for_more_than_a_twentieth_of_the_time_brings_advice():
    assert waiting_advice(0.05, 0.05) == waiting_advice(None, None) == ""
    assert "12.0 % of the training time was spent waiting for data: give" in waiting_advice(0.12, 0.0)
    assert "cache_gigabytes" not in waiting_advice(0.0, 0.12)
    assert waiting_advice(0.12, 0.12).count("%") == 2


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def followed(monkeypatch: pytest.MonkeyPatch, *, terminal: bool, seconds: float, done: int = 0) -> str:
    """The printed progress of 6 steps of 4 images, on a clock that advances so many seconds at each reading."""
    screen, now = Screen(terminal), iter(range(1000))
    monkeypatch.setattr("sys.stderr", screen)
    progress = ProgressLine(lambda: next(now) * seconds)
    progress.count(4)  # before the beginning nothing is printed
    with progress.over("epoch 1/2", 22, done=done, waits=lambda: (0.071, 0.002)):
        for _ in range(6):
            progress.count(4)
    return screen.getvalue()


def test_a_log_has_a_line_every_thirty_seconds_of_work(monkeypatch):
    told = followed(monkeypatch, terminal=False, seconds=12).splitlines()
    assert told == [
        "epoch 1/2: 12 of 22 images, 0.333 images/s, waited 7.1 % for data, 30 s left",
        "epoch 1/2: 22 of 22 images, 0.306 images/s, waited 7.1 % for data, 0 s left",
    ]
    assert followed(monkeypatch, terminal=False, seconds=1) == ""


def test_work_done_before_is_no_part_of_the_pace(monkeypatch):
    assert followed(monkeypatch, terminal=False, seconds=30, done=10).startswith("epoch 1/2: 14 of 22 images, 0.133 ")


def test_a_terminal_shows_one_line_of_progress_and_clears_it_at_the_end(monkeypatch):
    told = followed(monkeypatch, terminal=True, seconds=1)
    assert "\n" not in told
    assert told.count("\r\x1b[Kepoch 1/2: ") == 7
    assert told.count("waited 7.1 % for data") == 7
    assert told.endswith("\r\x1b[K")


def test_progress_is_reported_while_no_step_ends_but_not_after_the_end(monkeypatch):
    monkeypatch.setattr("sys.stderr", Screen(terminal=False))
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    progress = ProgressLine(itertools.count().__next__, tell=told.put, every_seconds=0.001)
    with progress.over("epoch 1/2", 22):
        assert told.get(timeout=60) == "epoch 1/2: 0 of 22 images in 1 s"
        progress.count(4)
        assert re.match(r"epoch 1/2: (0 of 22 images in|4 of 22 images, .* left$)", told.get(timeout=60))
    with progress.over("channels weighed on the cluster", 0):
        while not (words := told.get(timeout=60)).startswith("channels"):
            assert words.startswith("epoch")
    assert re.fullmatch(r"channels weighed on the cluster: \d+ s so far", words)
    assert not any(each.name == "progress" for each in threading.enumerate())


def test_silent_progress_prints_nothing(monkeypatch):
    screen = Screen(terminal=True)
    monkeypatch.setattr("sys.stderr", screen)
    progress = ProgressLine(silent=True)
    with progress.over("epoch 1/2", 22):
        progress.count(4)
    assert (screen.getvalue(), progress.done) == ("", 4)
