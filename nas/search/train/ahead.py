"""Jobs are looked for ahead of need: while trainings go on, the next candidates are proposed and measured.

To propose and to measure takes seconds to minutes. A thread of its own does it, and is told there too how trainings
ended, so that what looks for jobs is used by one thread only. What it finds is a function of the steps before, and how
far ahead it may look is part of that (`nas.search.search.ahead_of`): a run that is interrupted goes on with what was
found and not trained yet, and proposes what one that was not would have.
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

LAST_SECONDS = 10.0  # for what is computed without measuring to end, when the search is broken off


class Ahead:
    """A context that gives the same jobs, at most so many of them found before somebody asks.

    `halt`: ends what the thread measures, when the context is left by an exception. `idle`: what is entered while
    nothing is under way and the next job is waited for.
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
        self._changed = threading.Condition()  # guards all that follows
        self._found: deque[Job] = deque()
        self._ended: deque[tuple[Job, int, str]] = deque()  # told of, in their order
        self._under_way = 0
        self._over = False  # there is no further job
        self._waits = False  # for one under way
        self._epochs = 0  # heard of
        self._left = False
        self._error: Exception | None = None  # that ended the thread
        self._thread = threading.Thread(target=self._work, name="ahead", daemon=True)

    def __enter__(self) -> Jobs:
        self._thread.start()
        return Jobs(next=self._next, epoch=self._epoch, end=self._end, waits=self._asked)

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

    def _asked(self) -> bool:
        """Whether the next job is not known yet. Where nothing is under way there is nothing to do but to wait here.

        Raises: what broke the thread.
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

    def _epoch(self, job: Job, epoch: int, miou: float) -> None:
        """Raises: what broke the thread: trainings go on for hours, and nothing would come behind them."""
        with self._changed:
            if self._error is not None:
                raise self._error
            self._waits = False  # it may have been for what an epoch takes
            self._epochs += 1
            self._changed.notify_all()
        self._jobs.epoch(job, epoch, miou)

    def _end(self, job: Job, epoch: int, error: str) -> None:
        """Raises: what broke the thread."""
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
        """Waits for some; False when the context is left."""

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
            assert not waits or self._under_way or self._ended or self._found, "what it waits for is under way"
            self._waits = waits and not self._ended and epochs == self._epochs  # else it is to be asked again
            self._over = not waits and job is None
            if job is not None:
                self._found.append(job)
            self._changed.notify_all()
