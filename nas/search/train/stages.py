"""What is trained in each phase of a search, and what is recorded when a training ends."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.runs.trial import Trial
from nas.search.propose.proposals import Proposals
from nas.search.search import Search
from nas.search.train.ahead import Ahead
from nas.search.train.executor import Jobs, run_jobs
from nas.search.train.job import Job

JobSource = Callable[[], Jobs]
"""Makes the jobs of one stage, which may depend on the trainings of earlier stages."""


def train(
    search: Search,
    stages: Sequence[JobSource],
    ended: Callable[[], None] = lambda: None,
    halt: Callable[[], None] = lambda: None,
) -> None:
    """Train the jobs of one stage after the other, all in the same processes: a new one takes seconds to load PyTorch.
    The next jobs are looked for meanwhile. `ended` is called whenever a job has ended, and `halt` when the training is
    broken off, to end measurements under way (`nas.search.measure.timing.Halting`).

    Raises: HaltedError when a training failed because of its surroundings.
    """
    turns = Turns(stages)

    def end(job: Job, epoch: int, error: str) -> None:
        turns.end(job, epoch, error)
        ended()

    jobs = Jobs(
        next=turns.next,
        epoch=lambda job, epoch, loss, miou: turns.now.epoch(job, epoch, loss, miou),
        end=end,
        waits=turns.waits,
    )
    idle = functools.partial(search.console.progress.over, "the next candidate proposed and timed", 0)
    with Ahead(jobs, search.workers.concurrent, halt, idle) as found:
        run_jobs(search, found)


def candidates(search: Search, proposals: Proposals) -> Jobs:
    """Candidates as they are proposed, each trained up to its next rung."""

    def next_job() -> Job | None:
        trial = proposals.next()
        return None if trial is None else Job(trial=trial, phase="search")

    def end(job: Job, epoch: int, error: str) -> None:
        proposals.finished(job.trial, failed=error)
        search.console.ended(job, epoch, error)

    return Jobs(next=next_job, epoch=search.console.epoch, end=end, waits=proposals.waits)


def unfinished(search: Search, trials: Sequence[Trial]) -> Jobs:
    """Those of `trials` whose training in the search phase is not finished, or whose weights are damaged."""
    waiting = [trial for trial in trials if not trial.failed and not search.run.is_done(trial, "search")]
    jobs = iter([Job(trial=trial, phase="search") for trial in waiting])

    def end(job: Job, epoch: int, error: str) -> None:
        keep_end(search, job, epoch, error)

    return Jobs(next=lambda: next(jobs, None), epoch=search.console.epoch, end=end)


def keep_end(search: Search, job: Job, epoch: int, error: str) -> None:
    """Report that a training ended; if it failed, record that in its trial."""
    if error:
        search.run.write_trial(replace(job.trial, failed=error))
    search.console.ended(job, epoch, error)


class Turns:
    """The jobs of several stages. A stage begins when all trainings before it have ended."""

    def __init__(self, stages: Sequence[JobSource]) -> None:
        first, *self._later = stages
        self.now = first()
        self._found: Job | None = None
        self._under_way = 0

    def waits(self) -> bool:
        """Whether the next job depends on one under way."""
        while self._found is None:
            if self.now.waits():
                return True
            self._found = self.now.next()
            if self._found is not None:
                break
            if self._under_way:  # after it the stage may have another job
                return True
            if not self._later:
                break
            self.now = self._later.pop(0)()
        return False

    def next(self) -> Job | None:
        """The next job, to be called when nothing `waits`; None when there is none left."""
        job, self._found = self._found, None
        self._under_way += job is not None
        return job

    def end(self, job: Job, epoch: int, error: str) -> None:
        """A job ended."""
        self._under_way -= 1
        self.now.end(job, epoch, error)
