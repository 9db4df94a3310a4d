"""Batches made ahead: the same batches in the same order, and none while a network is timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext

import pytest
import torch
from torch import Tensor

from nas.data.batches import AHEAD, Batches, Waited
from nas.errors import DataError
from nas.latency.machine import lane
from nas.training.batch_loop import guarded

PARTS = [[0], [1], [2], [3], [4], [5]]


class Maker:
    """Makes batches that hold their sample's number, and records these numbers."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.made: list[int] = []
        self.waited = Waited()
        self._breaks_at = breaks_at

    def make(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        if indices[0] == self._breaks_at:
            raise DataError(f"picture {indices[0]} is damaged")
        self.made += indices
        return torch.tensor(indices), torch.tensor(indices)

    def batches(self) -> Batches:
        return Batches(PARTS, self.make, self.waited)


def numbers(batches: Iterator[tuple[Tensor, Tensor]]) -> list[int]:
    return [int(images) for images, _ in batches]


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "batches"]


def test_batches_made_ahead_are_the_same_in_the_same_order() -> None:
    assert numbers(Maker().batches()) == [0, 1, 2, 3, 4, 5]
    with closing(guarded(Maker().batches(), nullcontext)) as steps:
        assert numbers(steps) == [0, 1, 2, 3, 4, 5]
    assert threads() == []


def test_no_batch_is_made_before_the_first_request() -> None:
    maker = Maker()
    batches = maker.batches()
    assert maker.made == []
    next(batches)
    assert maker.made == [0]


def test_no_more_batches_are_made_ahead_than_agreed() -> None:
    maker = Maker()
    batches = maker.batches()
    with batches.ahead(nullcontext):
        next(batches)
        time.sleep(0.05)
        assert len(maker.made) <= 1 + AHEAD
    assert len(maker.made) <= 1 + AHEAD


def test_no_batch_is_made_while_a_network_is_timed() -> None:
    maker = Maker()
    batches = maker.batches()
    with batches.ahead(lane.shared):
        next(batches)
        with lane.exclusive():
            made = list(maker.made)
            time.sleep(0.05)
            assert maker.made == made
        assert numbers(batches) == [1, 2, 3, 4, 5]


def test_each_batch_is_made_and_used_under_a_guard_of_its_own() -> None:
    """The guard is a lock: a request for a batch inside the guard of a step would wait for ever."""
    lock, entered = threading.Lock(), []

    @contextmanager
    def guard() -> Iterator[None]:
        with lock:
            entered.append(threading.current_thread().name)
            yield

    maker = Maker()
    with closing(guarded(maker.batches(), guard)) as steps:
        for _ in steps:
            assert lock.locked()
    assert entered.count("batches") == len(PARTS)
    assert len(entered) == 2 * len(PARTS)


def test_a_loop_that_breaks_leaves_no_thread_running() -> None:
    maker = Maker()
    with closing(guarded(maker.batches(), lane.shared)) as steps:
        for _ in steps:
            break
    assert threads() == []
    with lane.exclusive():
        assert len(maker.made) < len(PARTS)


def test_a_step_that_fails_leaves_no_thread_running() -> None:
    def work() -> None:
        with closing(guarded(Maker().batches(), lane.shared)) as steps:
            for _ in steps:
                raise ValueError("the network diverged")

    with pytest.raises(ValueError, match="diverged"):
        work()
    assert threads() == []
    with lane.exclusive():
        pass


def test_an_error_is_raised_when_its_batch_is_requested() -> None:
    batches = Maker(breaks_at=2).batches()
    with batches.ahead(nullcontext):
        assert [int(next(batches)[0]) for _ in range(2)] == [0, 1]
        with pytest.raises(DataError, match="picture 2 is damaged"):
            next(batches)


def test_waiting_for_data_and_for_the_guard_are_counted_separately() -> None:
    @contextmanager
    def slow() -> Iterator[None]:
        time.sleep(0.02)
        yield

    maker = Maker()
    with closing(guarded(maker.batches(), slow)) as steps:
        numbers(steps)
    assert maker.waited.guard_seconds > 0.02 * len(PARTS)

    late = Waited()

    def make(indices: list[int]) -> tuple[Tensor, Tensor]:
        time.sleep(0.02)
        return Maker().make(indices)

    numbers(Batches(PARTS, make, late))
    assert late.data_seconds > 0.02 * len(PARTS)
    assert late.guard_seconds == 0
