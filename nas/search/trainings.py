"""Which candidates' trainings are over, and what they scored."""

from __future__ import annotations

from nas.runs.folder import RunFolder
from nas.runs.trial import Trial


class Trainings:
    """Of one run, in the search: how candidates are finished is no matter here."""

    def __init__(self, run: RunFolder) -> None:
        self.over: set[str] = set()
        """Keys of those for which nothing is to be done now: they ended, or pause."""
        self._run = run
        self._curves: dict[str, tuple[float, ...]] = {}

    def curve(self, trial: Trial) -> tuple[float, ...]:
        """mIoU after every epoch so far; of a training that is over it is read once."""
        key = trial.architecture.key
        if key in self._curves:
            return self._curves[key]
        curve = tuple(epoch.scores.miou for epoch in self._run.progress(trial, "search").history)
        if key in self.over:
            self._curves[key] = curve
        return curve

    def ends(self, trial: Trial) -> None:
        """A training ended, pauses or never begins."""
        self.over.add(trial.architecture.key)

    def goes_on(self, trial: Trial) -> None:
        """What was over is to be trained."""
        self.over.discard(trial.architecture.key)
        self._curves.pop(trial.architecture.key, None)
