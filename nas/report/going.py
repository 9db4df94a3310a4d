"""The progress of a run: the state of its candidates, and the steps still to come."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nas import samplers
from nas.host.words import counted
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
ProgressByTraining = Mapping[tuple[str, Phase], Progress]
"""By the key of the architecture and the phase."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """The state of a run's trials, and its next steps."""

    trained: int
    """Number of candidates whose training in the search phase has ended or paused."""
    paused: int
    """Number of those that paused, or that an earlier version stopped; they may go on."""
    under_way: int
    """Number of networks whose training has begun and not ended: it is running, or was interrupted."""
    waiting: int
    """Number of candidates inside the budget whose training has not begun."""
    failed: int
    """Number of networks whose training failed, or that the target cannot time."""
    over_budget: int
    """Number of candidates that are over the budget and were not trained."""
    steps: tuple[str, ...]
    """The steps still to come, in order; none once a winner is certified for every budget that is asked for."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """Candidates by the state of their training in the search phase."""

    inside: Sequence[Trial]
    """Candidates inside their budget whose training has not ended."""
    paused: Sequence[Trial]
    whole: Sequence[Trial]
    """Candidates that were trained to the last epoch."""


def going_of(
    run: RunFolder, study: Study, trials: Sequence[Trial], company: Sequence[Trial], *, answered: bool
) -> Going:
    """How far a run is. `answered`: a winner is certified for every budget that is asked for and can be met."""
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
            "time the best network again and certify it",
        ),
    )


def going_words(going: Going) -> str:
    """The progress of a run in two sentences."""
    paused = f" ({going.paused} of them paused)" if going.paused else ""
    return (
        f"So far: {going.trained} trained{paused}, {going.under_way} under way, {going.waiting} waiting, "
        f"{going.failed} failed, {going.over_budget} over the budget and not trained. "
        f"Still to come: {'; then '.join(going.steps) or 'nothing'}."
    )


def _under_way(run: RunFolder, trial: Trial, trainings: ProgressByTraining) -> bool:
    """Whether a training has begun and not ended: some of its epochs are done, or a process is working on it."""
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
    """The steps left in the search phase."""
    plan, epochs = study.search, study.recipe.epochs
    pauses = samplers.resumes(plan.sampler) and len(rungs_for(plan, epochs)) > 1
    open_ = [budget for budget in shares.budgets if not shares.closed and budget not in shares.given_up]
    begin = len(shares.seeds_left(trials)) + sum(shares.random_left(trials, budget) for budget in open_)
    left = sum(max(0, shares.effort_left(trials, budget)) for budget in open_)
    if pauses and left > 0:  # the number of candidates depends on their scores
        effort = f"{counted(left, 'epoch')} ({left / epochs:.1f} times a whole training)"
        return (f"train new and paused candidates for {effort}",)
    if begin or left > 0:
        return (f"propose, time and train {counted(max(begin, math.ceil(left / epochs)), 'more candidate')}",)
    steps = []
    unfinished = searched.inside
    if unfinished:
        end = "the end of the rung" if pauses else "the end"
        steps.append(f"train {counted(len(unfinished), 'candidate')} to {end}")
    to_the_end = [*searched.whole, *(each for each in unfinished if each.until(epochs) >= epochs)]
    finalists = 0
    for budget in shares.budgets:
        inside = [each for each in (*to_the_end, *searched.paused) if each.inside(budget)]
        competing = shares.competing(inside, budget)
        paused = sum(each in searched.paused for each in competing)
        finalists += max(0, min(plan.finalists - len(competing) + paused, paused))
    if finalists > 0:
        steps.append(f"train the best {counted(finalists, 'paused candidate')} to the end")
    return tuple(steps)


def _finishing(
    run: RunFolder,
    study: Study,
    shares: Shares,
    trials: Sequence[Trial],
    company: Sequence[Trial],
    trainings: ProgressByTraining,
) -> tuple[str, ...]:
    """The steps between the search phase and the certificate."""
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
        steps.append(f"try {counted(known.count(False), 'finish recipe')} on the best candidate")
    if finalists:
        epochs = plan.longest_finish if found is None or found.chosen is None else plan.epochs_of(found.recipe)
        steps.append(f"train the best {counted(finalists, 'candidate')} for {counted(epochs, 'more epoch')}")
    alike = set(plan.company) - {each.name for each in ended if each.origin == "company"}
    if alike:
        steps.append(f"train {counted(len(alike), 'published network')} for as long")
    if plan.company and plan.pruned and not any(each.origin == "pruned" for each in ended):
        steps.append(f"prune up to {counted(plan.pruned, 'published network')} into the budget")
    return tuple(steps)
