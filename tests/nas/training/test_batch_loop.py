"""The loop over batches holds its guard while a batch is fetched and used, and leaves it however the loop ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import torch

from nas.data.batches import Batches, Waited
from nas.training.batch_loop import guarded


class Diary:
    """Records the events of two batches and of the guard around them, in order."""

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


def test_each_batch_is_fetched_and_used_under_a_guard_of_its_own() -> None:
    diary = Diary()
    with closing(guarded(diary.batches(), diary.guard)) as steps:
        for batch in steps:
            diary.events.append(f"work on {batch}")
    assert diary.events == [
        *("enter", "fetch 1", "work on 1", "leave"),
        *("enter", "fetch 2", "work on 2", "leave"),
        *("enter", "leave"),  # the request that finds no more batches
    ]


def test_no_batch_is_fetched_before_the_first_request() -> None:
    diary = Diary()
    guarded(diary.batches(), diary.guard)
    assert diary.events == []


def test_a_loop_that_breaks_leaves_the_guard() -> None:
    diary = Diary()
    with closing(guarded(diary.batches(), diary.guard)) as steps:
        for batch in steps:
            diary.events.append(f"work on {batch}")
            break
        assert diary.events == ["enter", "fetch 1", "work on 1"]
    assert diary.events == ["enter", "fetch 1", "work on 1", "leave"]


def test_work_that_fails_leaves_the_guard() -> None:
    diary = Diary()

    def work() -> None:
        with closing(guarded(diary.batches(), diary.guard)) as steps:
            for batch in steps:
                raise ValueError(f"batch {batch} is no good")

    with pytest.raises(ValueError, match="batch 1 is no good"):
        work()
    assert diary.events == ["enter", "fetch 1", "leave"]


def test_a_fetch_that_fails_leaves_the_guard() -> None:
    diary = Diary()

    def unreadable() -> Iterator[int]:
        yield from diary.batches()
        raise ValueError("batch 3 is unreadable")

    with pytest.raises(ValueError, match="unreadable"), closing(guarded(unreadable(), diary.guard)) as steps:
        list(steps)
    assert diary.events == ["enter", "fetch 1", "leave", "enter", "fetch 2", "leave", "enter", "leave"]


@pytest.mark.parametrize(
    "shortage",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("Error in CPU operator `nvidia.dali.fn.decoders.image`,\nencountered:\n\nstd::bad_alloc"),
    ],
)
def test_a_shortage_of_memory_during_a_fetch_is_raised_unchanged(shortage) -> None:
    def short() -> Iterator[int]:
        raise shortage
        yield

    with pytest.raises(type(shortage)) as raised, closing(guarded(short(), Diary().guard)) as steps:
        next(steps)
    assert raised.value is shortage


@pytest.mark.parametrize(
    ("together", "expected"), [(1, [[0], [1], [2]]), (2, [[0, 1], [2]]), (3, [[0, 1, 2]]), (8, [[0, 1, 2]])]
)
def test_the_guard_of_ready_batches_is_left_only_after_waiting_for_the_device(together, expected) -> None:
    main, worked, settled = threading.current_thread(), [], []

    @contextmanager
    def guard() -> Iterator[None]:
        if here := threading.current_thread() is main:
            worked.append([])
        yield
        assert not here or settled == worked

    def settle() -> None:
        settled.append(list(worked[-1]))

    batches = Batches([[0], [1], [2]], lambda part: (torch.tensor(part), torch.tensor(part)), Waited())
    with closing(guarded(batches, guard, together=together, settle=settle)) as steps:
        for images, _ in steps:
            worked[-1].append(int(images))
            for thread in threading.enumerate():
                if thread.name == "batches":
                    thread.join()  # all batches are made
    assert worked == expected
