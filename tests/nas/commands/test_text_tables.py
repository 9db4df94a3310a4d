"""Plain text tables."""

from __future__ import annotations

import pytest

from nas.terminal import class_table, duration, percent, table
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
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_percent():
    assert (percent(0.1234), percent(None)) == ("12.3", "-")
