"""The batches of an epoch, made on request or ahead of time, and the time spent waiting for them."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nas.data.long_work import Guard

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nas.data.showings import Showing

    Batch = tuple[Tensor, Tensor]

AHEAD = 2
"""Batches made ahead of time: one ready and one in progress, so that an uneven pace evens out."""


@dataclass(kw_only=True)
class Waited:
    """Time spent waiting for the batches of a loader so far."""

    data_seconds: float = 0.0
    """Seconds spent waiting for batches that were not ready yet."""
    guard_seconds: float = 0.0
    """Seconds spent waiting to enter the guard for making or using a batch, while another process timed a network."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What the thread that makes batches puts into its queue."""

    batch: Batch | None
    """None after the last batch and after an error."""
    error: BaseException | None
    guarded_from: float
    guarded_to: float
    """Start and end of the wait for the guard, by time.perf_counter()."""


def no_images(size: tuple[int, int], device: torch.device) -> Batch:
    """An empty batch, for a process whose share of a batch holds no image."""
    import torch

    return torch.empty((0, 3, *size), device=device), torch.empty((0, *size), dtype=torch.int64, device=device)


class Batches(Iterator["Batch"]):
    """Images and labels, batch by batch, as `nas.data.loader.Loader.epoch` describes. A batch is made only when it is
    asked for, except inside the context of `ahead`.
    """

    def __init__(self, parts: Iterable[list[Showing]], make: Callable[[list[Showing]], Batch], waited: Waited) -> None:
        """`parts`: the samples of each batch; `make` turns them into a batch; waiting times are added to `waited`."""
        self._parts = iter(parts)
        self._make = make
        self._made: queue.SimpleQueue[Made] | None = None
        self._room = threading.Semaphore(AHEAD)
        self._ended = threading.Event()
        self._waited = waited

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        start = time.perf_counter()
        if self._made is None:
            batch = self._make(next(self._parts))
            self._waited.data_seconds += time.perf_counter() - start
            return batch
        made = self._made.get()
        end = time.perf_counter()
        guarded = max(0.0, min(end, made.guarded_to) - max(start, made.guarded_from))
        self._waited.guard_seconds += guarded
        self._waited.data_seconds += end - start - guarded
        if made.error is not None:
            raise made.error
        if made.batch is None:
            self._made.put(made)  # for later calls
            raise StopIteration
        self._room.release()
        return made.batch

    def made_already(self) -> Batch | None:
        """Inside `ahead`: the next batch if it is ready, without waiting; None otherwise, and after the last batch."""
        assert self._made is not None, "only inside `ahead`"
        try:
            made = self._made.get_nowait()
        except queue.Empty:
            return None
        if made.batch is None:
            self._made.put(made)  # the end or an error: left for `__next__`
            return None
        self._room.release()
        return made.batch

    @contextlib.contextmanager
    def ahead(self, guard: Guard) -> Iterator[None]:
        """Context in which a thread makes up to AHEAD batches before they are asked for, each inside a `guard()`.

        Do not ask for a batch while holding such a guard: the thread might be waiting for it. The context may end
        before the last batch; the thread has stopped by then.
        """
        assert self._made is None, "`ahead` is entered only once"
        self._made = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, args=(self._made, guard), name="batches", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self._room.release()
            thread.join()

    @contextlib.contextmanager
    def worked_on(self, guard: Guard, others: Callable[[], None]) -> Iterator[None]:
        """Context for using a batch: waits until the `others` have their batches too, then enters a `guard()`. Both
        waits are recorded.
        """
        start = time.perf_counter()
        others()
        made = time.perf_counter()
        self._waited.data_seconds += made - start
        with guard():
            self._waited.guard_seconds += time.perf_counter() - made
            yield

    def _work(self, made: queue.SimpleQueue[Made], guard: Guard) -> None:
        before = after = 0.0
        try:
            for part in self._parts:
                self._room.acquire()
                if self._ended.is_set():
                    return
                before = after = time.perf_counter()
                with guard():
                    after = time.perf_counter()
                    batch = self._make(part)
                made.put(Made(batch=batch, error=None, guarded_from=before, guarded_to=after))
            made.put(Made(batch=None, error=None, guarded_from=0.0, guarded_to=0.0))
        except BaseException as error:  # re-raised where the batch is asked for
            made.put(Made(batch=None, error=error, guarded_from=before, guarded_to=after))
