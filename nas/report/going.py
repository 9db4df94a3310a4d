"""How far a run is: how its candidates stand, and what is still to come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nas import samplers
from nas.runs.finish_recipe import read_finish_recipe
from nas.runs.folder import RunFolder
from nas.runs.shares import Shares
from nas.runs.spent import spent_of
from nas.runs.steps import rungs_for
from nas.runs.trial import Phase, Progress, Trial
from nas.runs.unreached import reachable, unreached
from nas.storage.files import OWNER
from nas.study import Study

PHASES: tuple[Phase, ...] = ("search", "finish")
Trainings = Mapping[tuple[str, Phase], Progress]
"""By the key of the architecture."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """How the trials of a run stand, and what it does next."""

    trained: int
    """Candidates whose training as such is over, or over for now: those that paused are among them."""
    paused: int
    """Those of them that paused, or that an earlier version stopped: they may go on."""
    under_way: int
    """Trainings of any network that have begun and are not over: they run, or were interrupted."""
    waiting: int
    """Candidates inside the budget whose training has not begun."""
    failed: int
    """Networks whose training broke, and those that the target cannot time."""
    over_budget: int
    """Candidates that are over the budget and were not trained."""
    steps: tuple[str, ...]
    """What is still to come, in order; nothing once a winner is certified for the budget that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """Candidates by how far their training as such is."""

    inside: Sequence[Trial]
    """Not over, and inside their budget."""
    paused: Sequence[Trial]
    whole: Sequence[Trial]
    """To their end."""


def going_of(
    run: RunFolder, study: Study, trials: Sequence[Trial], company: Sequence[Trial], *, answered: bool
) -> Going:
    """How far a run is. `answered`: a winner is certified for every budget that it is asked for and that can be met."""
    shares = Shares.of(study, reachable(run, study), unreached(run))
    shares = replace(shares, closed=spent_of(run).closes(study.search))
    everything = (*trials, *company)
    trainings = {(each.architecture.key, phase): run.progress(each, phase) for each in everything for phase in PHASES}
    begun = {each.architecture.key for each in everything if _under_way(run, each, trainings)}
    proposed = [each for each in trials if each.origin != "pruned" and not each.failed]
    whole = [each for each in proposed if trainings[each.architecture.key, "search"].done]
    paused = [
        each for each in proposed if each not in whole and each.paused_after(trainings[each.architecture.key, "search"])
    ]
    unfinished = [each for each in proposed if each not in whole and each not in paused]
    inside = [each for each in unfinished if each.feasible and each.inside(shares.home(each))]
    waiting = [each for each in inside if each.architecture.key not in begun]
    return Going(
        trained=len(whole) + len(paused),
        paused=len(paused),
        under_way=len(begun),
        waiting=len(waiting),
        failed=sum(bool(each.failed) for each in everything),
        over_budget=len(unfinished) - len(inside),
        steps=()
        if answered
        else (
            *_searching(study, shares, trials, Searched(inside=inside, paused=paused, whole=whole)),
            *_finishing(run, study, shares, trials, company, trainings),
            "measure the best again and certify it",
        ),
    )


def going_words(going: Going) -> str:
    """The same in two sentences."""
    paused = f" ({going.paused} of them paused)" if going.paused else ""
    return (
        f"So far: {going.trained} trained{paused}, {going.under_way} under way, {going.waiting} waiting, "
        f"{going.failed} failed, {going.over_budget} over the budget and not trained. "
        f"Still to come: {'; then '.join(going.steps) or 'nothing'}."
    )


def _under_way(run: RunFolder, trial: Trial, trainings: Trainings) -> bool:
    """Whether a training has begun and not ended: it has some of its epochs, or a process that works on it."""
    if trial.failed:
        return False
    for phase in PHASES:
        progress = trainings[trial.architecture.key, phase]
        if progress.done or (phase == "search" and trial.paused_after(progress)):
            continue
        if progress.history or (run.phase_path(trial, phase) / OWNER).is_file():
            return True
    return False


def _searching(study: Study, shares: Shares, trials: Sequence[Trial], searched: Searched) -> tuple[str, ...]:
    """What the search phase has still to do."""
    plan, epochs = study.search, study.recipe.epochs
    pauses = samplers.resumes(plan.sampler) and len(rungs_for(plan, epochs)) > 1
    open_ = [budget for budget in shares.budgets if not shares.closed and budget not in shares.given_up]
    begin = len(shares.seeds_left(trials)) + sum(shares.random_left(trials, budget) for budget in open_)
    left = sum(max(0, shares.effort_left(trials, budget)) for budget in open_)
    if pauses and left > 0:  # how many candidates that will be depends on what they score
        return (f"train new and paused candidates for {left} epochs, {left / epochs:.1f} times a whole training",)
    if begin or left > 0:
        return (f"propose, time and train {max(begin, math.ceil(left / epochs))} more candidates",)
    steps = []
    unfinished = searched.inside
    if unfinished:
        rung = "the end of their rungs" if pauses else "their end"
        steps.append(f"train {len(unfinished)} candidates to {rung}")
    to_the_end = [*searched.whole, *(each for each in unfinished if each.until(epochs) >= epochs)]
    finalists = 0
    for budget in shares.budgets:
        inside = [each for each in (*to_the_end, *searched.paused) if each.inside(budget)]
        competing = shares.competing(inside, budget)
        paused = sum(each in searched.paused for each in competing)
        finalists += max(0, min(plan.finalists - len(competing) + paused, paused))
    if finalists > 0:
        steps.append(f"train the best {finalists} of those that paused to their end")
    return tuple(steps)


def _finishing(
    run: RunFolder,
    study: Study,
    shares: Shares,
    trials: Sequence[Trial],
    company: Sequence[Trial],
    trainings: Trainings,
) -> tuple[str, ...]:
    """What comes between the search phase and the certificate."""
    plan = study.search
    if not plan.finish_epochs:
        return ()
    steps = []
    ended = [each for each in (*trials, *company) if trainings[each.architecture.key, "finish"].done]
    candidates = [each for each in ended if each.origin not in ("pruned", "company")]
    finalists = sum(
        max(0, plan.finalists - sum(each.inside(budget) for each in candidates)) for budget in shares.budgets
    )
    found = read_finish_recipe(run)
    known = [each.over for each in found.tried] if found else [False] * len(plan.tried_epochs)
    if not all(known):
        steps.append(f"try {known.count(False)} recipes on the best of them")
    if finalists:
        epochs = plan.longest_finish if found is None or found.chosen is None else plan.epochs_of(found.recipe)
        steps.append(f"train the best {finalists} for {epochs} epochs more")
    alike = set(plan.company) - {each.name for each in ended if each.origin == "company"}
    if alike:
        steps.append(f"train {len(alike)} published networks as long")
    if plan.company and plan.pruned and not any(each.origin == "pruned" for each in ended):
        steps.append(f"prune at most {plan.pruned} published networks that are over the budget into it")
    return tuple(steps)
