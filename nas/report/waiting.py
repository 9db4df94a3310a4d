"""How long the trainings of a run waited for data and for timings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nas.runs.folder import RunFolder
from nas.runs.trial import Epoch, Phase, Trial
from nas.terminal import percent


def waited(run: RunFolder, trials: Sequence[Trial]) -> tuple[float | None, float | None]:
    """Shares (0..1) of the time of all epochs spent waiting for data and for timings; None where not recorded."""
    phases: tuple[Phase, ...] = ("search", "finish")
    epochs = [epoch for trial in trials for phase in phases for epoch in run.progress(trial, phase).history]
    return _share(epochs, "waited_for_data"), _share(epochs, "waited_for_lane")


def waiting_words(data: float | None, lane: float | None) -> str:
    """The time that trainings waited, in a sentence; empty where it was not recorded."""
    if data is None or lane is None:
        return ""
    return (
        f"Trainings spent {percent(data)} % of their time waiting for data and {percent(lane)} % waiting for timings."
    )


def _share(epochs: Sequence[Epoch], name: Literal["waited_for_data", "waited_for_lane"]) -> float | None:
    """The share of their time that epochs waited, over those with a record of it."""
    known = [(share, each.seconds) for each in epochs if (share := getattr(each, name)) is not None]
    total = sum(seconds for _, seconds in known)
    return round(sum(share * seconds for share, seconds in known) / total, 4) if total else None
