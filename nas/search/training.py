"""Who is trained in which phase of a search, and what is recorded when a training ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nas.runs.trial import Phase, Trial
from nas.search.job import Job
from nas.search.proposals import Proposals
from nas.search.search import Search
from nas.search.tuning import Jobs, run_jobs


def train_candidates(search: Search, proposals: Proposals) -> None:
    """Train candidates as they are proposed; weak ones stop early where the study says so.

    Raises: HaltedError when something but a candidate broke a training.
    """
    epochs = search.study.recipe.epochs

    def next_job() -> Job | None:
        trial = proposals.next()
        return None if trial is None else Job(trial=trial, phase="search")

    def end(job: Job, epoch: int, error: str) -> None:
        proposals.finished(job.trial, stopped=not error and epoch < epochs, failed=error)
        search.console.ended(job, epoch, error)

    jobs = Jobs(
        next=next_job,
        epoch=search.console.epoch,
        end=end,
        waits=proposals.waits,
        is_weak=lambda job, epoch, miou: proposals.is_weak(job.trial, epoch, miou),
    )
    run_jobs(search, jobs)


def train_all(search: Search, trials: Sequence[Trial], phase: Phase) -> None:
    """Train those of `trials` to the end of a phase that are not there yet, or whose weights are damaged.

    Raises: HaltedError when something but a candidate broke a training.
    """
    waiting = [trial for trial in trials if not trial.failed and not search.run.is_done(trial, phase)]
    if not waiting:
        return
    jobs = iter([Job(trial=trial, phase=phase) for trial in waiting])

    def end(job: Job, epoch: int, error: str) -> None:
        if error:
            search.run.write_trial(replace(job.trial, failed=error))
        search.console.ended(job, epoch, error)

    run_jobs(search, Jobs(next=lambda: next(jobs, None), epoch=search.console.epoch, end=end))
