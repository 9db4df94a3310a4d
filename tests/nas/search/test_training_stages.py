"""Stages of trainings: the jobs of a stage are requested only after all earlier stages have ended."""

from __future__ import annotations

from typing import Any

from nas.search.train.executor import Jobs
from nas.search.train.stages import Turns


def test_a_stage_begins_when_all_earlier_stages_have_ended() -> None:
    ended: list[str] = []

    def stage(*names: str) -> Any:
        def begin() -> Jobs:
            jobs: Any = iter(names)
            return Jobs(
                next=lambda: next(jobs, None),
                epoch=lambda *_: None,
                end=lambda job, epoch, error: ended.append(f"{job} of {names}"),
            )

        return begin

    turns = Turns([stage("a", "b"), stage(), stage("c"), stage()])

    def begun() -> Any:
        return "waits" if turns.waits() else turns.next()

    assert [begun(), begun(), begun()] == ["a", "b", "waits"]
    turns.end("b", 1, "")  # type: ignore[arg-type]
    assert begun() == "waits"
    turns.end("a", 1, "")  # type: ignore[arg-type]
    assert [begun(), begun()] == ["c", "waits"]
    turns.end("c", 1, "")  # type: ignore[arg-type]
    assert [begun(), begun()] == [None, None]
    assert ended == ["b of ('a', 'b')", "a of ('a', 'b')", "c of ('c',)"]


def test_a_stage_can_wait_for_a_job_of_its_own() -> None:
    known = False
    jobs: Any = iter(["a", None, "b"])
    waiting = Jobs(next=lambda: next(jobs, None), epoch=print, end=print, waits=lambda: not known)
    turns = Turns([lambda: waiting])
    assert turns.waits()
    known = True
    assert not turns.waits()
    assert turns.next() == "a"  # type: ignore[comparison-overlap]
    assert turns.waits(), "the last stage too may have another job when this one has ended"
    turns.end("a", 1, "")  # type: ignore[arg-type]
    assert not turns.waits()
    assert turns.next() == "b"  # type: ignore[comparison-overlap]
    turns.end("b", 1, "")  # type: ignore[arg-type]
    assert not turns.waits()
    assert turns.next() is None
