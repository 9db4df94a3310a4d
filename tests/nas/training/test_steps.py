"""The loop over batches holds its guard while a batch is fetched and worked on, and lets go of it however it ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from nas.training.steps import guarded


class Diary:
    """What happened, in order, to two batches and the guard around them."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def batches(self) -> Iterator[int]:
        for number in (1, 2):
            self.events.append(f"fetch {number}")
            yield number

    @contextmanager
    def guard(self) -> Iterator[None]:
        self.events.append("enter")
        try:
            yield
        finally:
            self.events.append("leave")


def test_each_batch_is_fetched_and_worked_on_inside_a_guard_of_its_own() -> None:
    diary = Diary()
    with closing(guarded(diary.batches(), diary.guard)) as steps:
        for batch in steps:
            diary.events.append(f"work on {batch}")
    assert diary.events == [
        *("enter", "fetch 1", "work on 1", "leave"),
        *("enter", "fetch 2", "work on 2", "leave"),
        *("enter", "leave"),  # finding out that there are no more
    ]


def test_nothing_is_fetched_before_somebody_asks() -> None:
    diary = Diary()
    guarded(diary.batches(), diary.guard)
    assert diary.events == []


def test_a_loop_that_breaks_lets_go_of_the_guard() -> None:
    diary = Diary()
    with closing(guarded(diary.batches(), diary.guard)) as steps:
        for batch in steps:
            diary.events.append(f"work on {batch}")
            break
        assert diary.events == ["enter", "fetch 1", "work on 1"]
    assert diary.events == ["enter", "fetch 1", "work on 1", "leave"]


def test_work_that_fails_lets_go_of_the_guard() -> None:
    diary = Diary()

    def work() -> None:
        with closing(guarded(diary.batches(), diary.guard)) as steps:
            for batch in steps:
                raise ValueError(f"batch {batch} is no good")

    with pytest.raises(ValueError, match="batch 1 is no good"):
        work()
    assert diary.events == ["enter", "fetch 1", "leave"]


def test_a_fetch_that_fails_lets_go_of_the_guard() -> None:
    diary = Diary()

    def unreadable() -> Iterator[int]:
        yield from diary.batches()
        raise ValueError("batch 3 is unreadable")

    with pytest.raises(ValueError, match="unreadable"), closing(guarded(unreadable(), diary.guard)) as steps:
        list(steps)
    assert diary.events == ["enter", "fetch 1", "leave", "enter", "fetch 2", "leave", "enter", "leave"]
