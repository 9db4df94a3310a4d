"""What guided proposals know: a function of the trials before them, in their order, and of nothing else.

How trainings end depends on chance, on what else the machine does and on interruptions; what a proposal knows does not.
It is told of the trials before it, in the order of their proposal, but for the last few of those that train: these may
still be under way (`ahead`). A run that goes on asks the sampler again for the proposals that it has, so that the next
ones are those of a run that was never interrupted. What was timed again after all was proposed is known as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from nas.latency.budget import Budget
from nas.runs.earlier import EarlierTrial
from nas.runs.trial import Trial
from nas.search.sampler import Outcome, Sampler
from space.architecture import Architecture
from space.choices import Genotype

MOST_REPEATS = 25  # draws of the sampler that led to what was known, before one that did not
UNMEASURED = 1.0  # by what share of the budget a candidate counts as over it that cannot be timed


def before(trials: Sequence[Trial], number: int, ahead: int) -> list[Trial]:
    """Those of `trials` (in their order) that the candidate of this number may know of."""
    earlier = [each for each in trials if each.number < number and each.origin in ("seed", "random", "guided")]
    training = [each for each in earlier if each.feasible and each.disturbed is None]
    hidden = {each.architecture.key for each in training[max(0, len(training) - ahead) :]}
    return [each for each in earlier if each.architecture.key not in hidden]


class Guidance:
    """A sampler, and what it was told."""

    def __init__(
        self, sampler: Sampler[Architecture], budget: Budget, ahead: int, trained: Callable[[Trial], Outcome]
    ) -> None:
        """`trained`: how a candidate's training ended, budgets aside."""
        self._sampler = sampler
        self._budget = budget
        self._ahead = ahead
        self._trained = trained
        self._told: set[str] = set()  # keys
        self._numbers: dict[str, int] = {}  # of what the sampler knows of and was not told the outcome of, by key

    def recall(self, earlier: EarlierTrial, milliseconds: float) -> None:
        """What an earlier run found out about a candidate that takes so long; before anything else is told."""
        violations = {"latency": milliseconds / self._budget.milliseconds - 1}
        self._sampler.recall(
            dict(earlier.genotype), Outcome(miou=earlier.miou, fidelity=earlier.fidelity, violations=violations)
        )

    def repeat(self, trials: Sequence[Trial]) -> None:
        """Have the sampler propose again what it proposed for this budget.

        What it proposes before led to what was known. Where it does not come to the trial at all, another one proposed
        that (another kind, another version): then what came instead was never looked at.
        """
        for trial in trials:
            if trial.origin != "guided" or trial.budget_milliseconds != self._budget.milliseconds:
                continue
            self._tell(trials, trial.number)
            others: list[int] = []
            for _ in range(MOST_REPEATS):
                number, _, genotype = self._sampler.propose()
                if dict(genotype) == dict(trial.genotype):
                    self._numbers[trial.architecture.key] = number
                    break
                self.repeats(number)
                others.append(number)
            else:
                self._sampler.forget(others)

    def propose(self, trials: Sequence[Trial], number: int) -> tuple[int, Architecture, Genotype]:
        """A draw for the candidate of this number: the sampler's number of it, the architecture and its genotype."""
        self._tell(trials, number)
        return self._sampler.propose()

    def becomes(self, number: int, trial: Trial) -> None:
        """The draw of this sampler's number became a trial."""
        self._numbers[trial.architecture.key] = number

    def repeats(self, number: int) -> None:
        """The draw of this sampler's number led to what is known."""
        self._sampler.withdraw(number)

    def _tell(self, trials: Sequence[Trial], number: int) -> None:
        """The sampler knows of all candidates before this number, and how those ended that it may know the end of."""
        over = {trial.architecture.key for trial in before(trials, number, self._ahead)}
        for trial in before(trials, number, 0):
            key = trial.architecture.key
            if key in self._told or not trial.genotype:
                continue
            if key not in self._numbers:
                self._numbers[key] = self._sampler.enter(trial.genotype)
            if key in over:
                self._told.add(key)
                self._sampler.tell(self._numbers.pop(key), self.outcome(trial))

    def outcome(self, trial: Trial) -> Outcome:
        """How a candidate's training ended under the budget, as the sampler is told."""
        latency = trial.disturbed or trial.latency
        violation = UNMEASURED
        if latency is not None:
            violation = latency.milliseconds(self._budget.statistic) / self._budget.milliseconds - 1
        trained = self._trained(trial) if trial.disturbed is None else Outcome(miou=None)
        return replace(trained, violations={"latency": violation})
