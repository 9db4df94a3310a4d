"""The way through: is the budget reachable, propose, measure, train, finish, certify, report.

Each step reads what the run's folder already holds and adds what is missing, so that continuing a run is running it
again.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

import space
from nas.data import check, load
from nas.latency import default_target, parse_target
from nas.latency.meter import Measures
from nas.runs.certificate import Certificate
from nas.runs.folder import RunFolder
from nas.search.cluster_timing import timing_of_cluster
from nas.search.console import Console
from nas.search.finishing import certify_best, finish
from nas.search.measuring import time_each
from nas.search.proposals import Proposals
from nas.search.search import Candidate, Search, Workers
from nas.search.timing import LocalTiming, TimingOf
from nas.search.training import train_candidates
from nas.search.tuning import ray_session
from nas.study import Study
from space.errors import BudgetError, UnmeasuredError
from space.scale import scale_width

SMALLEST = 0.03  # width factor of the networks that tell whether a budget can be reached at all


def search(run: RunFolder, *, address: str | None = None) -> Certificate:
    """Answer the run's study, from wherever its folder stands.

    `address`: a Ray cluster to train on; the run's folder must be visible to its nodes under the same path.

    Raises: BudgetError when nothing reaches the budget; UserError when no candidate finished its training.
    """
    asked = _opened(run)
    concurrent = asked.workers.concurrent
    with contextlib.ExitStack() as session:
        timing_of: TimingOf = LocalTiming
        if address:  # the cluster may have a node that times
            session.enter_context(ray_session(address, concurrent))
            timing_of = timing_of_cluster()
        with timing_of(asked.target, asked.study.data.size, asked.num_classes) as timing:
            if not run.trials():
                _require_reachable(asked, timing)
            _measure_published(asked, timing)
            table = timing.kept_table()
            proposals = Proposals(asked, timing, table)
            if not address:  # a Ray of our own would only disturb the timings above
                session.enter_context(ray_session(None, concurrent))
            train_candidates(asked, proposals)
            finish(asked, timing, table)
        certificate = certify_best(asked, timing_of)
    _report(asked, certificate)
    return certificate


def _opened(run: RunFolder) -> Search:
    """What the run is asked, with its target spelled out, so that the run's folder says where it was timed."""
    study = run.study()
    if study.target:
        parse_target(study.target)  # a misspelt runtime is told before data are read
    dataset = load(study.data)
    check(dataset)
    if not study.target:
        study = replace(study, target=str(default_target()))
        run.write_study(study)
    asked = Search(run=run, study=study, dataset=dataset, workers=_workers(study), console=Console(run, study))
    asked.console.question(asked.target)
    return asked


def _workers(study: Study) -> Workers:
    import torch

    if torch.cuda.is_available():
        concurrent = study.search.concurrent or torch.cuda.device_count()
        return Workers(concurrent=concurrent, threads=max(1, (os.cpu_count() or 1) // concurrent), device="cuda")
    cores = len(os.sched_getaffinity(0))
    concurrent = min(study.search.concurrent or cores, cores)
    return Workers(concurrent=concurrent, threads=max(1, cores // concurrent), device="cpu")


def _require_reachable(search: Search, meter: Measures) -> None:
    """Say that a budget cannot be met before anything is trained.

    Raises: BudgetError with the lowest latency reached.
    """
    budget = search.budget
    smallest = [
        scale_width(space.load(name), SMALLEST) for name in ("ndnet45-fcn32", "swiftnet-rn18", "erfnet-encoder")
    ]
    latencies = [
        each for each in time_each(meter, smallest, within=search.quick) if not isinstance(each, UnmeasuredError)
    ]
    if not latencies:
        return  # candidates will tell
    lowest = min(latency.milliseconds(budget.statistic) for latency in latencies)
    if lowest > budget.milliseconds:
        raise BudgetError(
            f"expected a budget that {search.target} can meet, got {budget}; the narrowest networks of the space take "
            f"{lowest:.2f} ms here; raise the budget or lower the input size"
        )


def _measure_published(search: Search, meter: Measures) -> None:
    """Time every published network at its own width, once per run; they take turns."""
    run, console = search.run, search.console
    known = {trial.name: trial for trial in run.company()}
    missing = [name for name in space.published() if name not in known]
    if missing:
        console.step(f"time    {len(missing)} published networks, in turns")
    latencies = dict(zip(missing, time_each(meter, list(map(space.load, missing)), within=search.quick), strict=True))
    for number, name in enumerate(space.published(), 1):
        candidate = Candidate(name=name, origin="company", architecture=space.load(name), parent=name)
        if name in known:
            feasible = known[name].inside(search.budget)
            trial = replace(
                known[name], number=number, feasible=feasible, budget_milliseconds=search.budget.milliseconds
            )
        else:
            latency = latencies[name]
            failed = f"cannot be timed: {latency}" if isinstance(latency, UnmeasuredError) else ""
            trial = search.trial(
                number, candidate, None if isinstance(latency, UnmeasuredError) else latency, failed=failed
            )
        if trial != known.get(name):
            run.write_trial(trial)
        if name in missing:
            console.published(trial)


def _report(search: Search, certificate: Certificate) -> None:
    from nas.report import summarize, write_report
    from nas.report.terminal import leaderboard_table

    page = write_report(search.run)
    search.console.answer(leaderboard_table(summarize(search.run)), certificate, page)
