"""Keeps which candidates' trainings are over, and reads their scores."""

from __future__ import annotations

from nas.runs.folder import RunFolder
from nas.runs.steps import Step
from nas.runs.trial import Trial
from nas.search.propose.sampler import Outcome


class Trainings:
    """The trainings of one run in the search phase; the finish phase does not matter here."""

    def __init__(self, run: RunFolder, epochs: int) -> None:
        """`epochs` is the length of a whole training."""
        self.over: set[str] = set()
        """Keys of architectures whose trainings ended or paused, so that nothing is to be done for them now."""
        self._run = run
        self._epochs = epochs
        self._curves: dict[str, tuple[float | None, ...]] = {}

    def epochs(self, trial: Trial) -> int:
        """The number of epochs so far."""
        return len(self._curve(trial))

    def score(self, trial: Trial, epoch: int) -> float | None:
        """The mIoU after an epoch, from 1; None where the training has not come so far, or was not scored there."""
        return self._curve(trial)[epoch - 1] if 0 < epoch <= self.epochs(trial) else None

    def _curve(self, trial: Trial) -> tuple[float | None, ...]:
        """The mIoU after every epoch so far, None where it was not scored; cached once the training is over."""
        key = trial.architecture.key
        if key in self._curves:
            return self._curves[key]
        curve = tuple(epoch.miou for epoch in self._run.progress(trial, "search").history)
        if key in self.over:
            self._curves[key] = curve
        return curve

    def settled(self, trial: Trial) -> bool:
        """Whether nothing is left to be done for a trial as recorded."""
        if not trial.feasible or trial.failed or trial.origin == "pruned":
            return True
        done = self.epochs(trial)
        return done >= trial.until(self._epochs) or (trial.stopped and done > 0)

    def is_over(self, step: Step) -> bool:
        """Whether the training of a step ended or paused."""
        return not step.last or step.trial.architecture.key in self.over

    def outcome(self, step: Step) -> Outcome:
        """The result of the training of a step, without violations of budgets."""
        reached = min(self.epochs(step.trial), step.until(self._epochs))
        miou = self.score(step.trial, reached)
        if miou is None or (step.trial.failed and step.last):
            return Outcome(miou=None)
        return Outcome(miou=miou, fidelity=reached / self._epochs)

    def ends(self, trial: Trial) -> None:
        """Mark a training as over: it ended, paused or will not begin."""
        self.over.add(trial.architecture.key)

    def goes_on(self, trial: Trial) -> None:
        """Mark a training as not over: the trial is trained again."""
        self.over.discard(trial.architecture.key)
        self._curves.pop(trial.architecture.key, None)
