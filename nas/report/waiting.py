"""How long the trainings of a run waited for data, and for timings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nas.runs.folder import RunFolder
from nas.runs.trial import Epoch, Phase, Trial
from nas.terminal import percent


def waited(run: RunFolder, trials: Sequence[Trial]) -> tuple[float | None, float | None]:
    """The shares (0..1) of the time of all epochs that passed waiting for data and for timings; None if none told."""
    phases: tuple[Phase, ...] = ("search", "finish")
    epochs = [epoch for trial in trials for phase in phases for epoch in run.progress(trial, phase).history]
    return _share(epochs, "waited_for_data"), _share(epochs, "waited_for_lane")


def waiting_words(data: float | None, lane: float | None) -> str:
    """How long trainings waited, in a sentence; empty where none told."""
    if data is None or lane is None:
        return ""
    return (
        f"Of their time trainings spent {percent(data)} % waiting for data and {percent(lane)} % waiting for timings."
    )


def _share(epochs: Sequence[Epoch], name: Literal["waited_for_data", "waited_for_lane"]) -> float | None:
    """The share of their time that epochs waited, of those that tell."""
    told = [(share, each.seconds) for each in epochs if (share := getattr(each, name)) is not None]
    seconds = sum(each for _, each in told)
    return round(sum(share * each for share, each in told) / seconds, 4) if seconds else None
