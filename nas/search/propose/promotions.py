"""Decides which paused candidates go on to the end without the sampler: the score at a low rung is not final."""

from __future__ import annotations

from collections.abc import Sequence

from nas.latency.budget import Budget
from nas.runs.shares import Shares
from nas.runs.steps import Step
from nas.runs.trial import Trial
from nas.search.propose.outcomes import Trainings

BEST_SEEDS = 2  # seeds of a budget that go on although the sampler does not know them


def seed_to_go_on(trials: Sequence[Trial], known: Sequence[Step], shares: Shares, trainings: Trainings) -> Trial | None:
    """A paused seed outside the space, which the sampler therefore does not know, if it is among the best seeds of its
    budget after their first rung. None until the first rungs of all these seeds are among the `known` steps.
    """
    numbers = {step.number for step in known}
    for budget in shares.budgets if shares.turn(trials) is not None else ():
        seeds = [
            trial for trial in trials if trial.origin == "seed" and trial.feasible and shares.home(trial) == budget
        ]
        if any(trial.number not in numbers for trial in seeds):
            continue
        scores = {trial.number: score for trial in seeds if (score := _first_score(trial, trainings)) is not None}
        best = sorted(scores, key=lambda number: -scores[number])[:BEST_SEEDS]
        for trial in seeds:
            if trial.number in best and len(trial.rungs) == 1 and not (trial.genotype or trial.failed):
                return trial
    return None


def _first_score(trial: Trial, trainings: Trainings) -> float | None:
    """mIoU at the end of a candidate's first rung; None where it has no rung, or did not reach it."""
    return trainings.score(trial, trial.rungs[0].epochs) if trial.rungs else None


def missing_finalists(trials: Sequence[Trial], shares: Shares, trainings: Trainings) -> list[Trial]:
    """The best paused candidates, as many as finalists are missing for each budget."""
    found: list[Trial] = []
    for budget in shares.budgets:
        paused, whole = _standing(trials, budget, shares, trainings)
        found += paused[: max(0, shares.plan.finalists - whole)]
    return found


def best_paused(trials: Sequence[Trial], shares: Shares, trainings: Trainings) -> list[Trial]:
    """The best paused candidate of each budget; first that of the budget with the fewest whole trainings."""
    standings = [_standing(trials, budget, shares, trainings) for budget in shares.budgets]
    return [paused[0] for paused, _ in sorted(standings, key=lambda standing: standing[1]) if paused]


def _standing(trials: Sequence[Trial], budget: Budget, shares: Shares, trainings: Trainings) -> tuple[list[Trial], int]:
    """The paused candidates of a budget, the longest trainings first and of equally long ones the best; and the number
    of others that have been or will be trained to the end.
    """
    sound = [trial for trial in trials if trial.feasible and not trial.failed and trial.origin != "pruned"]
    ours = {trial.architecture.key: trial for trial in shares.competing(sound, budget)}
    done = {key: trainings.epochs(trial) for key, trial in ours.items() if key in trainings.over}
    paused = {
        key: (epochs, score)
        for key, epochs in done.items()
        if epochs < shares.epochs and (score := trainings.score(ours[key], epochs)) is not None
    }
    whole = sum(trial.until(shares.epochs) >= shares.epochs for key, trial in ours.items() if key not in paused)
    return [ours[key] for key in sorted(paused, key=lambda key: paused[key], reverse=True)], whole
