"""The end of a search: trains the finalists on, prunes networks into the budget, and certifies the best."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from nas.errors import ExportError, UnmeasuredError
from nas.host.words import counted
from nas.latency import MeterOf
from nas.latency.budget import Budget, Verdict
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures
from nas.runs.certificate import CERTIFICATE, Certificate, Deployed, read_certificate
from nas.runs.labelling import WEIGHTS
from nas.runs.spent import Stopwatch
from nas.runs.trial import Trial
from nas.search.finish.cutting import prune_over_budget, pruner_of
from nas.search.finish.recipes import InTime, begin_finish, begin_tries, finish, tries
from nas.search.finish.shipping import WORST_FIRST, NoBetterError, certify_trial, deployed_of, over, warning_of
from nas.search.search import Search
from nas.search.train.stages import JobSource, train, unfinished
from space.errors import BudgetError, UserError


def last_stages(search: Search, in_time: InTime) -> list[JobSource]:
    """What is trained after the candidates: the finalists to the end, and the study's published networks for as long as
    a finalist, which a time limit may shorten (`in_time`).
    """
    plan = search.study.search
    company = [trial for trial in search.run.company() if trial.name in plan.company]
    stages: list[JobSource] = [
        lambda: unfinished(search, company),
        lambda: unfinished(search, all_finalists(search)),  # trains a finalist again if its weights are damaged
    ]
    if plan.finish_epochs:
        stages += [
            lambda: unfinished(search, begin_tries(search, all_finalists(search))),  # as above
            lambda: tries(search),
            lambda: unfinished(search, begin_finish(search, [*all_finalists(search), *company], in_time)),
            lambda: finish(search, [*all_finalists(search), *company]),
        ]
    return stages


def prune_company(search: Search, meter: Measures, table: LatencyTable | None, ended: Callable[[], None]) -> None:
    """Prune trained networks that are over a budget into it, where the study asks for that, and fine-tune them. `ended`
    is called whenever pruning is over for a budget, or a training has ended.

    Raises: HaltedError when a training failed because of its surroundings.
    """
    if not search.study.search.finish_epochs:
        return
    pruned: list[Trial] = []
    for budget in search.budgets:
        pruned += prune_over_budget(search, pruner_of(search, meter, table, budget))
        ended()
    if not all(each.failed or search.run.is_done(each, "finish") for each in pruned):
        train(search, [lambda: finish(search, pruned)], ended)


def all_finalists(search: Search) -> list[Trial]:
    """The finalists of all budgets, each once.

    Raises: BudgetError when no budget has one.
    """
    found: dict[str, Trial] = {}
    refused: BudgetError | None = None
    for budget in search.budgets:
        try:
            found |= {trial.architecture.key: trial for trial in finalists(search, budget)}
        except BudgetError as error:
            refused = error
    if not found:
        assert refused is not None, "there is at least one budget"
        raise refused
    return list(found.values())


def finalists(search: Search, budget: Budget) -> list[Trial]:
    """The best candidates inside a budget whose training in the search phase is finished, best first.

    Raises: BudgetError when there is none.
    """
    run = search.run
    finished = [
        trial
        for trial in run.trials()
        if trial.inside(budget) and not trial.failed and run.progress(trial, "search").done
    ]
    if not finished:
        failed = next((trial for trial in run.trials() if trial.failed), None)
        first = "" if failed is None else f" ({failed.name}: {failed.failed})"
        raise BudgetError(
            f"expected a candidate inside {budget} whose training finished, got none of {len(run.trials())}{first}; "
            f"see {run.root}/trials, then give the search more trials or a larger budget"
        )
    finished.sort(key=lambda trial: run.progress(trial, "search").miou or 0.0, reverse=True)
    return finished[: search.study.search.finalists]


def certify_each(search: Search, meter_of: MeterOf, stopwatch: Stopwatch) -> dict[Budget, Certificate]:
    """Certify the best network for every budget of the study. A budget without one is left out, with a note.

    Raises: UserError when there is none for any budget.
    """
    found: dict[Budget, Certificate] = {}
    refused: UserError | None = None
    folders = search.run.winners(search.study)
    for place, (budget, folder) in enumerate(folders.items(), 1):
        stopwatch.keep()
        others = len(folders) - place
        has_room = functools.partial(_has_room, search, stopwatch, others)
        left_seconds = functools.partial(_left_seconds, search, stopwatch, others)
        try:
            found[budget] = certify_best(search, meter_of, budget, folder, has_room, left_seconds)
            if beside := sorted({each.name for each in folder.iterdir()} - {CERTIFICATE, *found[budget].sha256}):
                files = f"{', '.join(beside)}, not covered by {CERTIFICATE}: perhaps made from another network"
                search.console.step(f"note    {folder} also holds {files}")
        except (BudgetError, ExportError, UnmeasuredError) as error:
            if not search.study.asked.several:
                raise
            refused = error
            search.console.step(f"note    no winner for {budget}: {error}")
    if not found:
        assert refused is not None, "there is at least one budget"
        raise refused
    return found


def _has_room(search: Search, stopwatch: Stopwatch, others: int, seconds: float) -> bool:
    """Whether a search with a time limit has time for one more certificate, beside those of `others` budgets, if each
    takes `seconds`.
    """
    if seconds <= _left_seconds(search, stopwatch, others):
        return True
    plan = search.study.search
    stopwatch.end(plan.minutes)
    minutes = counted(plan.minutes, "minute leaves", "minutes leave")
    search.console.step(f"note    {minutes} no time to certify another network; to do so: {search.run.resume}")
    return False


def _left_seconds(search: Search, stopwatch: Stopwatch, others: int) -> float:
    """Seconds left for the certificates of one budget, if `others` get as much; infinite without a time limit."""
    return stopwatch.left_seconds(search.study.search) / (1 + others)


def certify_best(
    search: Search,
    meter_of: MeterOf,
    budget: Budget,
    folder: Path,
    has_room: Callable[[float], bool] = lambda seconds: True,
    left_seconds: Callable[[], float] = lambda: math.inf,
) -> Certificate:
    """Measure the finished networks inside a budget again, best first, until one passes, and write it into `folder`. If
    none passes, the best of those that may be inside the budget is certified as unsure, or else the best of all as over
    it.

    Networks that cannot be exported or timed with their trained weights are skipped. `certify_trial` certifies each of
    the others, and may give up a lower precision for full precision. A network that an earlier command certified in
    `folder` is replaced by another one only if the new verdict is no worse. `has_room` is called with the longest time
    that a certificate took so far; if it returns False, no further network is measured. More processes than usual time
    a network that may be inside the budget, as long as `left_seconds` are enough for another certificate too.

    Raises: UserError when all are skipped.
    """
    competing: list[Trial] = []
    deployed: dict[str, Deployed | None] = {}
    refused: UserError | None = None
    for trial in [*finalists(search, budget), *_pruned(search, budget)]:
        try:
            deployed[trial.architecture.key] = deployed_of(search, trial)
            competing.append(trial)
        except UnmeasuredError as error:
            search.console.step(f"        {trial.name}: left out: {error}")
            refused = refused or error

    def miou(trial: Trial) -> float:
        form = deployed[trial.architecture.key]
        return (search.run.best_miou(trial) or 0.0) if form is None else form.scores.miou

    best: Certificate | None = None
    before = _certified_before(search, competing, budget, folder)
    longest = 0.0
    for trial in sorted(competing, key=miou, reverse=True):
        if longest and not has_room(longest):
            break
        search.console.step(f"certify {trial.name}{f' for {budget}' if search.budgets.several else ''}")
        if words := warning_of(search, trial):
            search.console.step(f"        {words}")
        begun = time.monotonic()
        try:
            form, worthwhile = deployed[trial.architecture.key], _worthwhile(trial, best, before)
            has_time = functools.partial(_has_time, begun, left_seconds)
            best = certify_trial(search, trial, form, meter_of, budget, folder, worthwhile, has_time)
            latency = best.latency
        except NoBetterError as error:
            latency = error.latency
        except (ExportError, UnmeasuredError) as error:
            search.console.step(f"        left out: {error}")
            refused = refused or error
            continue
        longest = max(longest, time.monotonic() - begun)
        if budget.verdict(latency) == "PASS":
            break
        search.console.step(f"        {latency} {over(latency, budget)}")
    if best is None and longest:  # none was good enough to replace the earlier certificate
        best = before
    if best is None:
        assert refused is not None, "there is at least one finalist"
        raise refused
    return best


def _has_time(begun: float, left_seconds: Callable[[], float]) -> bool:
    """Whether a certificate begun then may take longer: three times as much time is left, enough for another one."""
    return 3 * (time.monotonic() - begun) <= left_seconds()


def _certified_before(search: Search, competing: Sequence[Trial], budget: Budget, folder: Path) -> Certificate | None:
    """The certificate in a winner's folder, if it is for this budget and for a competing network with its present
    weights.
    """
    import torch

    from nas.training.weights import load_weights

    with contextlib.suppress(UserError):  # there is no certificate, or it is damaged
        found = read_certificate(folder)
        trial = next((each for each in competing if each.architecture.key == found.architecture), None)
        if trial is not None and found.budget == str(budget):
            weights, certified = load_weights(search.run.weights_path(trial)), load_weights(folder / WEIGHTS)
            same_names = weights.keys() == certified.keys()
            if same_names and all(torch.equal(weights[name], certified[name]) for name in weights):
                return found
    return None


def _worthwhile(trial: Trial, best: Certificate | None, before: Certificate | None) -> Sequence[Verdict | None]:
    """The verdicts with which a trial replaces the present certificate: better ones than that of the `best` so far,
    which has a higher score; or no worse ones than that of another network certified `before`. A new measurement of the
    same network always counts.
    """
    if best is not None:
        return WORST_FIRST[WORST_FIRST.index(best.verdict) + 1 :]
    if before is not None and before.architecture != trial.architecture.key:
        return WORST_FIRST[WORST_FIRST.index(before.verdict) :]
    return WORST_FIRST


def _pruned(search: Search, budget: Budget) -> list[Trial]:
    """Pruned networks inside a budget whose fine-tuning is done."""
    run = search.run
    inside = [each for each in run.trials() if each.origin == "pruned" and each.inside(budget)]
    return [each for each in inside if not each.failed and run.progress(each, "finish").done]
