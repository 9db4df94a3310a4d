"""Decides which paused candidates go on to the end when no more are proposed: the score at a low rung is not final."""

from __future__ import annotations

from collections.abc import Sequence

from nas.latency.budget import Budget
from nas.runs.shares import Shares
from nas.runs.trial import Trial
from nas.search.propose.outcomes import Trainings


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
    curves = {key: trainings.curve(trial) for key, trial in ours.items() if key in trainings.over}
    paused = [key for key, curve in curves.items() if len(curve) < shares.epochs]
    whole = sum(trial.until(shares.epochs) >= shares.epochs for key, trial in ours.items() if key not in paused)
    return [ours[key] for key in sorted(paused, key=lambda key: (-len(curves[key]), -curves[key][-1]))], whole
