"""Which candidates' trainings are over, and what they scored."""

from __future__ import annotations

from nas.runs.folder import RunFolder
from nas.runs.steps import Step
from nas.runs.trial import Trial
from nas.search.propose.sampler import Outcome


class Trainings:
    """Of one run, in the search: how candidates are finished is no matter here."""

    def __init__(self, run: RunFolder, epochs: int) -> None:
        """`epochs`: of a whole training."""
        self.over: set[str] = set()
        """Keys of those for which nothing is to be done now: they ended, or pause."""
        self._run = run
        self._epochs = epochs
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

    def settled(self, trial: Trial) -> bool:
        """Whether nothing is left to be done of a trial as it was recorded."""
        if not trial.feasible or trial.failed or trial.origin == "pruned":
            return True
        done = len(self.curve(trial))
        return done >= trial.until(self._epochs) or (trial.stopped and done > 0)

    def outcome(self, step: Step) -> Outcome:
        """How the training of a step ended, budgets aside."""
        curve = self.curve(step.trial)[: step.until(self._epochs)]
        if not curve or (step.trial.failed and step.last):
            return Outcome(miou=None)
        return Outcome(miou=curve[-1], fidelity=len(curve) / self._epochs)

    def ends(self, trial: Trial) -> None:
        """A training ended, pauses or never begins."""
        self.over.add(trial.architecture.key)

    def goes_on(self, trial: Trial) -> None:
        """What was over is to be trained."""
        self.over.discard(trial.architecture.key)
        self._curves.pop(trial.architecture.key, None)
