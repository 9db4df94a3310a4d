"""The way through: is the budget reachable, propose, measure, train, finish, certify, report.

Each step reads what the run's folder already holds and adds what is missing, so that continuing a run is running it
again.
"""

from __future__ import annotations

import contextlib
import functools
import os
from dataclasses import replace

import space
from nas.data import check, load
from nas.latency import default_target, parse_target
from nas.latency.budget import unsettled
from nas.latency.meter import Measures
from nas.runs.certificate import Certificate
from nas.runs.folder import RunFolder
from nas.search.cluster_timing import timing_of_cluster
from nas.search.console import Console
from nas.search.fill import NEARLY_FULL
from nas.search.finishing import certify_best, finish
from nas.search.limits import above_the_space, limits_of, widest
from nas.search.proposals import Proposals
from nas.search.search import Candidate, Search, Workers
from nas.search.timing import LocalTiming, TimingOf
from nas.search.training import train_candidates
from nas.search.tuning import ray_session
from nas.study import Study
from space.errors import BudgetError
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
        timing_of = functools.partial(timing_of, patience_seconds=asked.study.patience_seconds)
        with timing_of(asked.target, asked.study.data.size, asked.num_classes) as timing:
            if not run.trials():
                _require_reachable(asked, timing)
            new = not run.trials()
            _measure_published(asked, timing)
            if new:
                _say_if_too_large(asked, timing)
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
    """Say that a budget cannot be met before anything is trained. Latencies that a busy machine gave say no such thing:
    they are taken once more, and if that does not help it is the machine that is refused, not the budget.

    Raises: BudgetError with the lowest latency reached.
    """
    budget = search.budget
    smallest = [
        scale_width(space.load(name), SMALLEST) for name in ("ndnet45-fcn32", "swiftnet-rn18", "erfnet-encoder")
    ]
    for _ in range(2):
        latencies = meter.measure_together(smallest, within=search.quick)
        lowest = min(latencies, key=lambda latency: latency.milliseconds(budget.statistic))
        milliseconds = lowest.milliseconds(budget.statistic)
        if all(budget.refutes(latency) for latency in latencies):
            raise BudgetError(
                f"expected a budget that {search.target} can meet, got {budget}; the narrowest networks of the space "
                f"take {milliseconds:.2f} ms here; raise the budget or lower the input size"
            )
        if any(budget.verdict(each) != "FAIL" and (budget.admits(each) or not each.flagged) for each in latencies):
            return
    disturbed = lowest if lowest.flagged else next(latency for latency in latencies if latency.flagged)
    raise BudgetError(
        f"expected a machine quiet enough to tell whether {search.target} can meet {budget}; the narrowest networks of "
        f"the space took {milliseconds:.2f} ms, but {unsettled(disturbed)}"
    )


def _measure_published(search: Search, meter: Measures) -> None:
    """Time every published network at its own width, once per run; they take turns."""
    run, console = search.run, search.console
    known = {trial.name: trial.latency for trial in run.company()}
    missing = [name for name in space.published() if name not in known]
    if missing:
        console.step(f"time    {len(missing)} published networks, in turns")
        latencies = meter.measure_together([space.load(name) for name in missing], within=search.quick)
        known |= dict(zip(missing, latencies, strict=True))
    for number, name in enumerate(space.published(), 1):
        candidate = Candidate(name=name, origin="company", architecture=space.load(name), parent=name)
        trial = search.trial(number, candidate, known[name])
        run.write_trial(trial)
        if name in missing:
            console.published(trial)


def _say_if_too_large(search: Search, meter: Measures) -> None:
    """Say that a budget is more than the space can use. Looked at only where every published network is inside it."""
    budget = search.budget
    if not all(budget.admits(trial.latency) for trial in search.run.company()):
        return
    allows = limits_of(search.study, search.num_classes)
    largest = [widest(space.load(name), allows) for name in search.study.search.seeds or space.published()]
    latencies = meter.measure_together(largest, within=search.quick)
    highest = max(latency.milliseconds(budget.statistic) for latency in latencies)
    if highest < NEARLY_FULL * budget.milliseconds:
        search.console.step(f"note    {above_the_space(budget, highest, search.study)}")


def _report(search: Search, certificate: Certificate) -> None:
    from nas.report import summarize, write_report
    from nas.report.terminal import leaderboard_table

    page = write_report(search.run)
    search.console.answer(leaderboard_table(summarize(search.run)), certificate, page)
