"""The steps of a search in their order: in each, a candidate begins, or goes on to its next rung.

A rung is a short training with a complete learning rate schedule. A candidate that pauses after a rung keeps its
weights; if it goes on, it starts from them with a new schedule: a warm restart (Loshchilov and Hutter, "SGDR", 2017).
Which candidate goes on depends only on the results of the steps before, in their order, not on speed or interruptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.runs.trial import Rung, Trial
from nas.study import SearchPlan

APART = 4  # ratio of epochs from one rung to the next
MOST_RUNGS = 3  # so that the lowest is a sixteenth of a training; shorter ones were never examined
# Epochs of a rung below a quarter of a training. After one epoch, shallow networks with a coarse output are ahead that
# are not in the end (`studies/camvid/searches`).
LEAST_OF_SIXTEENTH = 2


@dataclass(frozen=True, kw_only=True)
class Step:
    """A proposal of a search, and its training."""

    number: int
    """Number in the order of proposal."""
    trial: Trial
    place: int
    """Index of its rung among the trial's rungs; 0 where there are none."""

    @property
    def last(self) -> bool:
        """Whether it is the trial's last step so far."""
        return self.place >= len(self.trial.rungs) - 1

    @property
    def as_it_ended(self) -> Trial:
        """The trial as it was at the end of this step."""
        if self.last:
            return self.trial
        return replace(self.trial, rungs=self.trial.rungs[: self.place + 1], failed="")

    @property
    def trains(self) -> bool:
        """Whether it was due to be trained when it was proposed; a timing repeated later does not count."""
        return self.trial.feasible and self.trial.disturbed is None

    def until(self, epochs: int) -> int:
        """The last epoch of this step; `epochs` are those of a whole training."""
        return self.trial.rungs[self.place].epochs if self.trial.rungs else epochs

    def adds(self, epochs: int) -> int:
        """Number of epochs of this step; `epochs` are those of a whole training."""
        before = self.trial.rungs[self.place - 1].epochs if self.place else 0
        return self.until(epochs) - before

    @property
    def in_vain(self) -> int | None:
        """Number of draws that the sampler discarded before it; None where unknown or not proposed by the sampler."""
        return self.trial.rungs[self.place].in_vain if self.place else self.trial.in_vain

    def is_of(self, budget_milliseconds: float) -> bool:
        """Whether it was proposed for this budget."""
        if self.place:
            return self.trial.rungs[self.place].budget_milliseconds == budget_milliseconds
        return budget_milliseconds in (self.trial.budget_milliseconds, *self.trial.also_milliseconds)


def rungs_for(plan: SearchPlan, epochs: int) -> tuple[int, ...]:
    """Epochs at which candidates of `epochs` can pause, ascending, and the last one: a quarter of them where that is
    an epoch or more, and a sixteenth where that is `LEAST_OF_SIXTEENTH` or more.
    """
    found = [epochs]
    while plan.stop_weak and plan.guided_trials and len(found) < MOST_RUNGS:
        lower = round(found[0] / APART)
        if lower < (1 if len(found) == 1 else LEAST_OF_SIXTEENTH):
            break
        found.insert(0, lower)
    return tuple(found)


def steps_of(trials: Sequence[Trial]) -> list[Step]:
    """All steps of the candidates, in their order."""
    found = []
    for trial in trials:
        if trial.origin in ("seed", "random", "guided"):
            numbers = [trial.number, *(rung.number for rung in trial.rungs[1:])]
            found += [Step(number=number, trial=trial, place=place) for place, number in enumerate(numbers)]
    return sorted(found, key=lambda step: step.number)


def before(trials: Sequence[Trial], number: int, ahead: int) -> list[Step]:
    """The steps whose results step `number` may use: all before it, except the last `ahead` that train."""
    earlier = [step for step in steps_of(trials) if step.number < number]
    training = [step.number for step in earlier if step.trains]
    hidden = set(training[max(0, len(training) - ahead) :])
    return [step for step in earlier if step.number not in hidden]


def effort_left(plan: SearchPlan, trials: Sequence[Trial], budget_milliseconds: float, epochs: int) -> int:
    """Epochs that a plan still has for steps of a budget, including seeds and random draws; 0 or less where none are
    left. A published network that is over the budget at every width counts as if it were trained, since the plan names
    it. `epochs` are those of a whole training.
    """
    effort = (len(plan.seeds) + plan.random_trials + plan.guided_trials) * epochs
    return effort - sum(
        step.adds(epochs)
        for step in steps_of(trials)
        if step.is_of(budget_milliseconds) and (step.trial.feasible or step.trial.origin == "seed")
    )


def begin_at(trial: Trial, epochs: int, until: int) -> Trial:
    """A candidate whose first rung ends at epoch `until`; `epochs` are those of a whole training."""
    if until >= epochs:
        return trial
    rung = Rung(epochs=until, number=trial.number, budget_milliseconds=trial.budget_milliseconds)
    return replace(trial, rungs=(rung,))


def go_on_to(trial: Trial, rung: Rung, epochs: int) -> Trial:
    """A candidate that paused after `epochs`, with the rung to which it is to be trained on."""
    begun = trial.rungs
    if trial.stopped:  # an earlier version stopped it in the middle of its schedule
        begun = (Rung(epochs=epochs, number=trial.number, budget_milliseconds=trial.budget_milliseconds),)
    return replace(trial, rungs=(*begun, rung), stopped=False)
