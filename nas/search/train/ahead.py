"""Looks for jobs ahead of need: while trainings go on, the next candidates are proposed and measured.

Proposing and measuring take seconds to minutes, so a separate thread does both. The ends of trainings are passed to the
same thread, so that only one thread uses the source of jobs. The jobs depend on nothing but the steps before them and
on how far ahead the thread may look (`nas.search.search.ahead_of`). A resumed run therefore goes on with the jobs that
were found but not trained yet, and then proposes the same candidates as a run that was never interrupted.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from nas.search.train.executor import Jobs
from nas.search.train.job import Job

LAST_SECONDS = 10.0  # time for the thread to finish computing when the search is broken off; measuring is halted


class Ahead:
    """A context that gives the same jobs, up to `most` of which are found before they are requested.

    `halt` ends the thread's measurements when the context is left by an exception. `idle` is entered while nothing is
    being trained and the next job is waited for.
    """

    def __init__(
        self,
        jobs: Jobs,
        most: int,
        halt: Callable[[], None],
        idle: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._jobs = jobs
        self._most = most
        self._halt = halt
        self._idle = idle
        self._changed = threading.Condition()  # guards all attributes below
        self._found: deque[Job] = deque()
        self._ended: deque[tuple[Job, int, str]] = deque()  # to be passed on, in this order
        self._under_way = 0
        self._over = False  # there is no further job
        self._waits = False  # the next job depends on a training under way
        self._epochs = 0  # finished so far
        self._left = False  # the context has ended
        self._error: Exception | None = None  # what ended the thread
        self._thread = threading.Thread(target=self._work, name="ahead", daemon=True)

    def __enter__(self) -> Jobs:
        self._thread.start()
        return Jobs(next=self._next, epoch=self._epoch, end=self._end, waits=self._must_wait)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            if error is None:
                self._changed.wait_for(lambda: not self._ended or self._error)
            self._left = True
            self._changed.notify_all()
        if error is not None:
            self._halt()
        self._thread.join(LAST_SECONDS)
        if error is None and self._error is not None:
            raise self._error

    def _must_wait(self) -> bool:
        """Whether the next job is not known yet. Blocks until it is known where nothing is being trained.

        Raises: the error that ended the thread.
        """
        with self._changed:
            if not self._under_way and not self._is_known():
                with self._idle():
                    self._changed.wait_for(self._is_known)
            if self._error is not None:
                raise self._error
            return not self._is_known()

    def _is_known(self) -> bool:
        """Whether there is a next job, or it is known that there is none."""
        return bool(self._found) or self._over or self._error is not None

    def _next(self) -> Job | None:
        with self._changed:
            if not self._found:
                return None
            self._under_way += 1
            self._changed.notify_all()
            return self._found.popleft()

    def _epoch(self, job: Job, epoch: int, loss: float, miou: float | None) -> None:
        """Raises: the error that ended the thread, now rather than hours later when the trainings are over."""
        with self._changed:
            if self._error is not None:
                raise self._error
            self._waits = False  # the next job may have depended on how long an epoch takes
            self._epochs += 1
            self._changed.notify_all()
        self._jobs.epoch(job, epoch, loss, miou)

    def _end(self, job: Job, epoch: int, error: str) -> None:
        """Raises: the error that ended the thread."""
        with self._changed:
            if self._error is not None:
                raise self._error
            self._under_way -= 1
            self._ended.append((job, epoch, error))
            self._changed.notify_all()

    def _work(self) -> None:
        try:
            while self._has_work():
                if self._ended:
                    self._jobs.end(*self._ended[0])
                    with self._changed:
                        self._ended.popleft()
                        self._waits = False
                        self._changed.notify_all()
                else:
                    self._look()
        except Exception as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _has_work(self) -> bool:
        """Wait for work; False when the context has ended."""

        def has() -> bool:
            looks = not (self._over or self._waits) and len(self._found) < self._most
            return self._left or bool(self._ended) or looks

        with self._changed:
            self._changed.wait_for(has)
            return not self._left

    def _look(self) -> None:
        with self._changed:
            epochs = self._epochs
        waits = self._jobs.waits()
        job = None if waits else self._jobs.next()
        with self._changed:
            assert not waits or self._under_way or self._ended or self._found, "the awaited training is under way"
            self._waits = waits and not self._ended and epochs == self._epochs  # else the answer may have changed
            self._over = not waits and job is None
            if job is not None:
                self._found.append(job)
            self._changed.notify_all()
