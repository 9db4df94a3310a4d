"""Finding the next jobs while others are under way, in one thread and in a fixed order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nas.search.train.ahead import Ahead
from nas.search.train.executor import Jobs
from space.errors import BudgetError

SECONDS = 30.0  # a longer wait means that a thread hangs


class Finder:
    """Gives so many jobs, each once a test permits it, and records the asking threads and the ends of jobs."""

    def __init__(self, count: int, ahead: int = 9) -> None:
        self._left = list(range(count))
        self._ahead = ahead  # the largest number of jobs under way
        self._open = 0
        self.may_find = threading.Semaphore(0)
        self.found = threading.Semaphore(0)
        self.told: list[Any] = []
        self.threads: set[int] = set()

    def jobs(self) -> Jobs:
        return Jobs(next=self.next, epoch=lambda *_: None, end=self.end, waits=self.waits)

    def waits(self) -> bool:
        self.threads.add(threading.get_ident())
        return bool(self._left) and self._open >= self._ahead

    def next(self) -> Any:
        assert self.may_find.acquire(timeout=SECONDS)
        self._open += bool(self._left)
        job = self._left.pop(0) if self._left else None
        self.found.release()
        return job

    def end(self, job: Any, epoch: int, error: str) -> None:
        self.threads.add(threading.get_ident())
        self._open -= 1
        self.told.append(job)


def patiently(holds: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(int(SECONDS * 100)):
        if holds():
            return
        waiting.wait(0.01)
    raise AssertionError("it does not become so")


def test_the_next_job_is_found_while_another_one_is_under_way() -> None:
    finder = Finder(2)
    with Ahead(finder.jobs(), 1, lambda: None) as jobs:
        finder.may_find.release()
        assert not jobs.waits(), "with nothing under way it is waited for"
        assert jobs.next() == 0  # type: ignore[comparison-overlap]
        assert jobs.waits(), "whoever asks meanwhile is not kept"
        assert jobs.next() is None
        finder.may_find.release(2)
        patiently(lambda: not jobs.waits())
        assert jobs.next() == 1  # type: ignore[comparison-overlap]
        jobs.end(0, 1, "")  # type: ignore[arg-type]
        jobs.end(1, 1, "")  # type: ignore[arg-type]
        assert not jobs.waits()
        assert jobs.next() is None
    assert finder.told == [0, 1], "all ends are told of when it is left"
    assert len(finder.threads) == 1
    assert threading.get_ident() not in finder.threads


def test_no_more_jobs_are_found_ahead_than_requested() -> None:
    finder = Finder(5)
    finder.may_find.release(9)
    with Ahead(finder.jobs(), 2, lambda: None) as jobs:
        for _ in range(2):
            assert finder.found.acquire(timeout=SECONDS)
        assert not finder.found.acquire(timeout=0.1)
        jobs.next()
        assert finder.found.acquire(timeout=SECONDS)


def test_a_job_that_depends_on_the_end_of_another_is_found_after_that_end() -> None:
    finder = Finder(2, ahead=1)
    finder.may_find.release(9)
    with Ahead(finder.jobs(), 4, lambda: None) as jobs:
        assert not jobs.waits()
        jobs.next()
        assert jobs.waits()
        jobs.end(0, 1, "")  # type: ignore[arg-type]
        assert not jobs.waits()
        assert jobs.next() == 1  # type: ignore[comparison-overlap]


def test_a_job_that_depends_on_an_epoch_is_found_after_that_epoch() -> None:
    left: list[Any] = [0, 1]
    known = threading.Event()
    found = Jobs(
        next=lambda: left.pop(0) if left else None,
        epoch=lambda *_: None,
        end=lambda *_: None,
        waits=lambda: left == [1] and not known.is_set(),
    )
    with Ahead(found, 4, lambda: None) as jobs:
        assert not jobs.waits()
        jobs.next()
        assert jobs.waits()
        known.set()
        jobs.epoch(0, 1, 1.0, 0.5)  # type: ignore[arg-type]
        patiently(lambda: not jobs.waits())


def test_an_epoch_reported_during_the_question_whether_to_wait_is_not_missed() -> None:
    left: list[Any] = [0, 1]
    asks, known = threading.Event(), threading.Event()

    def waits() -> bool:
        if left != [1] or known.is_set():
            return False
        asks.set()
        assert known.wait(SECONDS)
        return True

    found = Jobs(
        next=lambda: left.pop(0) if left else None, epoch=lambda *_: known.set(), end=lambda *_: None, waits=waits
    )
    with Ahead(found, 4, lambda: None) as jobs:
        assert not jobs.waits()
        jobs.next()
        assert asks.wait(SECONDS)
        jobs.epoch(0, 1, 1.0, 0.5)  # type: ignore[arg-type]
        patiently(lambda: not jobs.waits())


def test_the_idle_context_surrounds_the_wait_for_a_job_while_no_training_is_under_way() -> None:
    finder, entered = Finder(2), []

    @contextlib.contextmanager
    def idle() -> Iterator[None]:
        entered.append("begins")
        finder.may_find.release()
        yield
        entered.append("ends")

    with Ahead(finder.jobs(), 1, lambda: None, idle) as jobs:
        assert not jobs.waits()
        assert entered == ["begins", "ends"]
        jobs.next()
        assert jobs.waits()
        assert len(entered) == 2, "one is under way"
        finder.may_find.release(2)
        patiently(lambda: not jobs.waits())
        jobs.next()
        for job in (0, 1):
            jobs.end(job, 1, "")  # type: ignore[arg-type]


@pytest.mark.parametrize("where", ["next", "end", "waits"])
def test_an_error_of_the_finding_thread_is_raised_by_the_caller(where: str) -> None:
    def breaks(*_: object) -> Any:
        raise BudgetError("too small")

    finder = Finder(3)
    finder.may_find.release(9)
    words: dict[str, Any] = {**vars(finder.jobs()), where: breaks}

    def one_job() -> None:
        with Ahead(Jobs(**words), 1, lambda: None) as jobs:
            jobs.waits()
            jobs.next()
            jobs.end(0, 1, "")  # type: ignore[arg-type]

    with pytest.raises(BudgetError, match="too small"):
        one_job()


def test_an_error_is_raised_at_the_next_epoch_of_a_long_training() -> None:
    answers = iter((False,))

    def waits() -> bool:
        for answer in answers:
            return answer
        raise BudgetError("too small")

    def long_training() -> None:
        with Ahead(Jobs(next=lambda: 0, epoch=print, end=print, waits=waits), 2, print) as jobs:  # type: ignore[arg-type, return-value]
            assert not jobs.waits()
            jobs.next()
            patiently(lambda: not any(thread.name == "ahead" for thread in threading.enumerate()))
            jobs.epoch(0, 1, 1.0, 0.5)  # type: ignore[arg-type]

    with pytest.raises(BudgetError, match="too small"):
        long_training()


def test_a_measurement_is_halted_by_an_interruption() -> None:
    halted, began = threading.Event(), threading.Event()

    def measures() -> None:
        began.set()
        assert halted.wait(SECONDS)

    jobs = Jobs(next=measures, epoch=print, end=print)  # type: ignore[arg-type]

    def interrupted() -> None:
        with Ahead(jobs, 1, halted.set):
            assert began.wait(SECONDS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert halted.is_set()
    assert not any(thread.name == "ahead" for thread in threading.enumerate())
