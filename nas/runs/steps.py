"""The steps of a search in their order: a candidate begins, or goes on to another rung.

A rung is a short training whose schedule comes to its end. A candidate that pauses there keeps its weights, and when it
goes on, it goes on from them with another schedule: a warm restart (Loshchilov and Hutter, "SGDR", 2017). What goes on
depends on what the steps before ended with, in their order, and neither on speed nor on interruptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.runs.trial import Rung, Trial
from nas.study import SearchPlan

APART = 4  # times as long is each rung as the one below
MOST_RUNGS = 3  # the lowest is a sixteenth: of shorter ones nothing is known


@dataclass(frozen=True, kw_only=True)
class Step:
    """A proposal of a search, and its training."""

    number: int
    """In the order of proposal."""
    trial: Trial
    place: int
    """Of its rung among the trial's; 0 where it has none."""

    @property
    def last(self) -> bool:
        """Whether the trial has not gone on after it."""
        return self.place >= len(self.trial.rungs) - 1

    @property
    def as_it_ended(self) -> Trial:
        """The trial when this step was over."""
        if self.last:
            return self.trial
        return replace(self.trial, rungs=self.trial.rungs[: self.place + 1], failed="")

    @property
    def trains(self) -> bool:
        """Whether it was to be trained when it was proposed."""
        return self.trial.feasible and self.trial.disturbed is None

    def until(self, epochs: int) -> int:
        """The epoch after which it is over, of so many of a whole training."""
        return self.trial.rungs[self.place].epochs if self.trial.rungs else epochs

    def adds(self, epochs: int) -> int:
        """How many epochs it is, of so many of a whole training."""
        before = self.trial.rungs[self.place - 1].epochs if self.place else 0
        return self.until(epochs) - before

    @property
    def in_vain(self) -> int | None:
        """How many draws the sampler made for it in vain; None where that was not kept, or it is not the sampler's."""
        return self.trial.rungs[self.place].in_vain if self.place else self.trial.in_vain

    def is_of(self, budget_milliseconds: float) -> bool:
        """Whether it was proposed for this budget."""
        if self.place:
            return self.trial.rungs[self.place].budget_milliseconds == budget_milliseconds
        return budget_milliseconds in (self.trial.budget_milliseconds, *self.trial.also_milliseconds)


def rungs_for(plan: SearchPlan, epochs: int) -> tuple[int, ...]:
    """The epochs at which candidates of `epochs` can pause, ascending, and their last one. A rung has one at least."""
    found = [epochs]
    while plan.stop_weak and plan.guided_trials and len(found) < MOST_RUNGS and (lower := round(found[0] / APART)) >= 1:
        found.insert(0, lower)
    return tuple(found)


def steps_of(trials: Sequence[Trial]) -> list[Step]:
    """The steps of candidates, in their order."""
    found = []
    for trial in trials:
        if trial.origin in ("seed", "random", "guided"):
            numbers = [trial.number, *(rung.number for rung in trial.rungs[1:])]
            found += [Step(number=number, trial=trial, place=place) for place, number in enumerate(numbers)]
    return sorted(found, key=lambda step: step.number)


def before(trials: Sequence[Trial], number: int, ahead: int) -> list[Step]:
    """The steps whose end the one of this number may know of: those before it, but for the last few that train."""
    earlier = [step for step in steps_of(trials) if step.number < number]
    training = [step.number for step in earlier if step.trains]
    hidden = set(training[max(0, len(training) - ahead) :])
    return [step for step in earlier if step.number not in hidden]


def effort_left(plan: SearchPlan, trials: Sequence[Trial], budget_milliseconds: float, epochs: int) -> int:
    """The epochs that a plan has for steps for a budget that are not proposed yet, seeds and random ones among them; 0
    or less where it has none. A published network that no width brings inside it counts as if it were trained, since
    the plan names it. `epochs` are those of a whole training.
    """
    effort = (len(plan.seeds) + plan.random_trials + plan.guided_trials) * epochs
    return effort - sum(
        step.adds(epochs)
        for step in steps_of(trials)
        if step.is_of(budget_milliseconds) and (step.trial.feasible or step.trial.origin == "seed")
    )


def begin_at(trial: Trial, epochs: int, until: int) -> Trial:
    """A candidate that is to be trained `until` an epoch first, of as many `epochs` as a whole training has."""
    if until >= epochs:
        return trial
    rung = Rung(epochs=until, number=trial.number, budget_milliseconds=trial.budget_milliseconds)
    return replace(trial, rungs=(rung,))
