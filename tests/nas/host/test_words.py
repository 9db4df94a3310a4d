"""Helpers for the text of messages."""

from __future__ import annotations

import pytest

from nas.host.words import counted, one_line


def test_a_text_of_many_lines_becomes_one_line() -> None:
    assert one_line(ValueError("first\n  second\tthird ")) == "first second third"


def test_a_long_line_keeps_its_beginning_or_its_end() -> None:
    assert one_line("a long line", 6) == "a long"
    assert one_line("a long line", 4, end=True) == "line"
    assert one_line("short", 200) == one_line("short", 200, end=True) == "short"


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 epochs"), (1, "1 epoch"), (2.5, "2.5 epochs"), (1234567, "1234567 epochs")]
)
def test_a_noun_agrees_with_its_number(count: float, words: str) -> None:
    assert counted(count, "epoch") == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 latencies are"), (1, "1 latency is"), (2, "2 latencies are")])
def test_a_noun_with_its_verb_agrees_with_its_number(count: int, words: str) -> None:
    assert counted(count, "latency is", "latencies are") == words
