"""Decides which results guided proposals may use: a function of the steps before them, in their order, and of nothing
else.

The order in which trainings end depends on chance, on the load of the machine and on interruptions; what a proposal
knows must not. It knows the results of the steps before it, in the order of their proposal, except for the last few
that train: these may still be under way (`ahead`). A resumed run has the sampler propose again what the run already
holds, so that the next proposals are those of a run that was never interrupted; it leaves out those that cannot change
the next ones. A candidate that was timed again after all proposals counts with its first latency.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from nas.latency.budget import Budget, Budgets
from nas.runs.earlier import EarlierTrial
from nas.runs.steps import Step, before, steps_of
from nas.runs.trial import Trial
from nas.runs.unreached import Unreached
from nas.search.propose.sampler import Outcome, Proposal, Sampler
from space.architecture import Architecture
from space.choices import Genotype

MOST_DUPLICATES = 25  # draws of the sampler in a row that lead to known candidates
UNMEASURED = 1.0  # budget overshoot, as a share, assumed for a candidate that cannot be timed


class Guidance:
    """A sampler, and the results that it knows."""

    def __init__(
        self,
        sampler: Sampler[Architecture],
        budgets: Budgets,
        *,
        apart: bool,
        ahead: int,
        epochs: int,
        trained: Callable[[Step], Outcome],
        point: Callable[[Trial], Genotype | None],
    ) -> None:
        """`apart`: whether the sampler distinguishes budgets, because there are steps for several, now or before.
        `epochs`: length of a whole training. `trained`: returns the result of a step's training, without violations of
        budgets. `point`: returns the answers of a trial, or None where it is not in the searched space.
        """
        self._sampler = sampler
        self._budgets = budgets
        self._apart = apart
        self._ahead = ahead
        self._epochs = epochs
        self._trained = trained
        self._point = point
        self._told: set[int] = set()  # numbers of the steps whose results the sampler knows
        self._numbers: dict[int, int] = {}  # by step: the sampler's number, while it does not know the result
        self._duplicates = 0  # draws that led to known candidates, since the last draw that became a step
        self._empty = 0  # draws that led to no architecture, since then

    def add_earlier(self, earlier: EarlierTrial, milliseconds: float) -> None:
        """Pass on the result of an earlier run's candidate with this latency, before any results of this run."""
        admitting = (budget for budget in self._budgets if milliseconds <= budget.milliseconds)
        budget = next(admitting, self._budgets.largest)
        over = milliseconds / budget.milliseconds - 1
        # A trained one was made for another budget or target: if it is over this one, a narrower one may be inside.
        violations = {} if over > 0 and earlier.miou is not None else {"latency": over}
        self._sampler.add_earlier(
            dict(earlier.genotype),
            Outcome(miou=earlier.miou, fidelity=earlier.fidelity, violations=violations),
            self._budget_key(budget.milliseconds),
        )

    def warm_start(self, scored: Iterable[tuple[Genotype, float]]) -> None:
        """Pass on scores of networks on other data, as differences to their median, before any results of this run."""
        for genotype, score in scored:
            self._sampler.warm_start(genotype, score, self._budget_key(self._budgets.largest.milliseconds))

    def replay(self, trials: Sequence[Trial], given_up: Mapping[Budget, Unreached]) -> None:
        """Have the sampler propose again what it proposed for these budgets before the run was interrupted, including
        the duplicates before a budget was given up.

        A proposal that differs from the run's next trial was a duplicate then. If none of `MOST_DUPLICATES` is that
        trial, it was proposed by another sampler (another kind or version), and so were the later ones: the proposals
        made here in its place are forgotten.
        """
        left = [(budget, each) for budget, each in given_up.items() if each.repeats]
        by_another_sampler = False
        for step in steps_of(trials):
            while left and left[0][1].number <= step.number:
                self._replay_duplicates(trials, *left.pop(0))
            if not (self._proposed(step) and any(step.is_of(budget.milliseconds) for budget in self._budgets)):
                continue
            if self._sampler.stateless and step.in_vain == 0:  # later proposals are the same if it is entered as it is
                continue
            self._tell(trials, step.number)
            if by_another_sampler:
                continue
            others: list[int] = []
            for _ in range(MOST_DUPLICATES):
                proposal = self._sampler.propose(self._budget_key(step.trial.budget_milliseconds))
                if dict(proposal.genotype) == self._point(step.trial):
                    self._numbers[step.number] = proposal.number
                    break
                self.reject_duplicate(proposal.number)
                others.append(proposal.number)
            else:
                self._sampler.forget(others)
                by_another_sampler = True  # not checked for each later step: each check takes a minute
        for budget, each in left:
            self._replay_duplicates(trials, budget, each)
        self._duplicates = self._empty = 0

    def _replay_duplicates(self, trials: Sequence[Trial], budget: Budget, given_up: Unreached) -> None:
        """Repeat the duplicate draws before a budget was given up: later draws depend on how many there were."""
        for _ in range(given_up.repeats):
            self.reject_duplicate(self.propose(trials, given_up.number, budget).number)

    def pop_duplicates(self) -> int:
        """The number of duplicate draws since the last draw that became a step; resets the counters of draws, for when
        a budget is given up.
        """
        duplicates, self._duplicates, self._empty = self._duplicates, 0, 0
        return duplicates

    @property
    def in_vain(self) -> int:
        """Number of draws without a new architecture since the last draw that became a step."""
        return self._duplicates + self._empty

    def propose(self, trials: Sequence[Trial], number: int, budget: Budget) -> Proposal[Architecture]:
        """A draw for the step of this number, for one of the budgets."""
        self._tell(trials, number)
        proposal = self._sampler.propose(self._budget_key(budget.milliseconds))
        self._empty += proposal.in_vain
        return proposal

    def record_step(self, proposed: int, number: int) -> None:
        """Record that a proposal, by its number in the sampler, became the step of `number`."""
        self._numbers[number] = proposed
        self._duplicates = self._empty = 0

    def reject_duplicate(self, proposed: int) -> None:
        """Record that a proposal, by its number in the sampler, led to a known candidate."""
        self._sampler.withdraw(proposed)
        self._duplicates += 1

    def _budget_key(self, milliseconds: float) -> float | None:
        """The budget as the sampler distinguishes it; None where there is only one."""
        return milliseconds if self._apart else None

    def _proposed(self, step: Step) -> bool:
        return step.trial.rungs[step.place].guided if step.place else step.trial.origin == "guided"

    def _tell(self, trials: Sequence[Trial], number: int) -> None:
        """Tell the sampler all steps before this number, and the results of those that it may know. Trials outside the
        space are left out, as where the space was narrowed since.
        """
        over = {step.number for step in before(trials, number, self._ahead)}
        for step in before(trials, number, 0):
            if step.number in self._told:
                continue
            if step.number not in self._numbers:
                point = self._point(step.trial)
                if point is None:
                    self._told.add(step.number)
                    continue
                share = step.until(self._epochs) / self._epochs
                budget = self._budget_key(step.trial.budget_milliseconds)
                self._numbers[step.number] = self._sampler.enter(point, share, budget)
            if step.number in over:
                self._told.add(step.number)
                self._sampler.tell(self._numbers.pop(step.number), self.outcome(step, step.trial.budget_milliseconds))

    def outcome(self, step: Step, budget_milliseconds: float) -> Outcome:
        """The result of a step under a budget. The sampler gets the result under the budget that the step was made for,
        even if the study no longer asks for it.
        """
        latency = step.trial.disturbed or step.trial.latency
        violation = UNMEASURED
        if latency is not None:
            milliseconds = latency.milliseconds(self._budgets.largest.statistic)
            violation = milliseconds / budget_milliseconds - 1
        trained = self._trained(step) if step.trial.disturbed is None else Outcome(miou=None)
        return replace(trained, violations={"latency": violation})
