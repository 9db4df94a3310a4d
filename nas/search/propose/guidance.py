"""What guided proposals know: a function of the steps before them, in their order, and of nothing else.

How trainings end depends on chance, on what else the machine does and on interruptions; what a proposal knows does not.
It is told of the steps before it, in the order of their proposal, but for the last few of those that train: these may
still be under way (`ahead`). A run that goes on asks the sampler again for the proposals that it has, so that the next
ones are those of a run that was never interrupted; not for those that make no difference to the next ones. What was
timed again after all was proposed is known as it was.
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

MOST_REPEATS = 25  # draws of the sampler that led to what was known, before one that did not
UNMEASURED = 1.0  # by what share of the budget a candidate counts as over it that cannot be timed


class Guidance:
    """A sampler, and what it was told."""

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
        """`apart`: whether there are steps for several budgets, asked for now or before, which the sampler tells apart;
        `epochs`: of a whole training; `trained`: how the training of a step ended, budgets aside; `point`: the answers
        of a trial, None where it is none of what is searched.
        """
        self._sampler = sampler
        self._budgets = budgets
        self._apart = apart
        self._ahead = ahead
        self._epochs = epochs
        self._trained = trained
        self._point = point
        self._told: set[int] = set()  # numbers of steps
        self._numbers: dict[int, int] = {}  # of what the sampler knows of and was not told the outcome of, by step
        self._in_vain = 0  # draws that led to what was known, since the last that became a step
        self._empty = 0  # those that led to nothing

    def recall(self, earlier: EarlierTrial, milliseconds: float) -> None:
        """What an earlier run found out about a candidate that takes so long; before anything else is told."""
        admitting = (budget for budget in self._budgets if milliseconds <= budget.milliseconds)
        budget = next(admitting, self._budgets.largest)
        over = milliseconds / budget.milliseconds - 1
        # What scored was made for another budget or target: where it is over this one, a narrower one may be inside.
        violations = {} if over > 0 and earlier.miou is not None else {"latency": over}
        self._sampler.recall(
            dict(earlier.genotype),
            Outcome(miou=earlier.miou, fidelity=earlier.fidelity, violations=violations),
            self._told_for(budget.milliseconds),
        )

    def warm_start(self, evaluations: Iterable[tuple[Genotype, float]]) -> None:
        """How much higher than usual networks scored on other data, by their answers; before anything else is told."""
        for genotype, score in evaluations:
            self._sampler.warm_start(genotype, score, self._told_for(self._budgets.largest.milliseconds))

    def repeat(self, trials: Sequence[Trial], given_up: Mapping[Budget, Unreached]) -> None:
        """Have the sampler propose again what it proposed for these budgets, also in vain for those that were given up.

        What it proposes before led to what was known. Where it does not come to the trial at all, another one proposed
        that (another kind, another version), and what follows: then what came instead was never looked at.
        """
        left = [(budget, each) for budget, each in given_up.items() if each.repeats]
        anothers = False
        for step in steps_of(trials):
            while left and left[0][1].number <= step.number:
                self._draw_in_vain(trials, *left.pop(0))
            if not (self._proposed(step) and any(step.is_of(budget.milliseconds) for budget in self._budgets)):
                continue
            if self._sampler.stateless and step.in_vain == 0:  # entered as it is, it counts as much
                continue
            self._tell(trials, step.number)
            if anothers:
                continue
            others: list[int] = []
            for _ in range(MOST_REPEATS):
                proposal = self._sampler.propose(self._told_for(step.trial.budget_milliseconds))
                if dict(proposal.genotype) == self._point(step.trial):
                    self._numbers[step.number] = proposal.number
                    break
                self.repeats(proposal.number)
                others.append(proposal.number)
            else:
                self._sampler.forget(others)
                anothers = True  # to find that out for each takes a minute each
        for budget, each in left:
            self._draw_in_vain(trials, budget, each)
        self._in_vain = self._empty = 0

    def _draw_in_vain(self, trials: Sequence[Trial], budget: Budget, given_up: Unreached) -> None:
        """Draw again what came to nothing before a budget was given up: later draws depend on how many there were."""
        for _ in range(given_up.repeats):
            self.repeats(self.propose(trials, given_up.number, budget).number)

    def gives_up(self) -> int:
        """Nothing more is proposed for the budget of the last draws; how many of them led to what was known, since the
        last that became a step.
        """
        repeats, self._in_vain, self._empty = self._in_vain, 0, 0
        return repeats

    @property
    def in_vain(self) -> int:
        """How many draws led to what was known or to nothing, since the last that became a step."""
        return self._in_vain + self._empty

    def propose(self, trials: Sequence[Trial], number: int, budget: Budget) -> Proposal[Architecture]:
        """A draw for the step of this number, for one of the budgets."""
        self._tell(trials, number)
        proposal = self._sampler.propose(self._told_for(budget.milliseconds))
        self._empty += proposal.in_vain
        return proposal

    def becomes(self, proposed: int, number: int) -> None:
        """What the sampler knows under a number became the step of that number."""
        self._numbers[number] = proposed
        self._in_vain = self._empty = 0

    def repeats(self, proposed: int) -> None:
        """The draw of this sampler's number led to what is known."""
        self._sampler.withdraw(proposed)
        self._in_vain += 1

    def _told_for(self, milliseconds: float) -> float | None:
        """What the sampler tells budgets apart by; None where there is one."""
        return milliseconds if self._apart else None

    def _proposed(self, step: Step) -> bool:
        return step.trial.rungs[step.place].guided if step.place else step.trial.origin == "guided"

    def _tell(self, trials: Sequence[Trial], number: int) -> None:
        """The sampler knows of all steps before this number, and how those ended that it may know the end of; not of
        what is no point of the space, as where that was narrowed since.
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
                budget = self._told_for(step.trial.budget_milliseconds)
                self._numbers[step.number] = self._sampler.enter(point, share, budget)
            if step.number in over:
                self._told.add(step.number)
                self._sampler.tell(self._numbers.pop(step.number), self.outcome(step, step.trial.budget_milliseconds))

    def outcome(self, step: Step, budget_milliseconds: float) -> Outcome:
        """How the training of a step ended, under a budget. The sampler is told so of the one that it was made for,
        whether or not that is still asked for.
        """
        latency = step.trial.disturbed or step.trial.latency
        violation = UNMEASURED
        if latency is not None:
            milliseconds = latency.milliseconds(self._budgets.largest.statistic)
            violation = milliseconds / budget_milliseconds - 1
        trained = self._trained(step) if step.trial.disturbed is None else Outcome(miou=None)
        return replace(trained, violations={"latency": violation})
