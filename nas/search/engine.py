"""Runs a search from start to end: check the budget, propose, measure, train, finish, certify, report.

Each step reads what the run's folder already holds and adds what is missing. Resuming a run is therefore the same as
running it again.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import space
from nas.data import check, load
from nas.data.loader import dali_works
from nas.errors import UnmeasuredError
from nas.host.words import counted
from nas.latency import Meter, default_target, parse_target
from nas.latency.budget import Budget
from nas.latency.careful import time_each
from nas.latency.estimates.calibration import words_of_host
from nas.latency.estimates.shipped import table_instead
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine import lane
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.latency.runtimes import require_one
from nas.runs.certificate import Certificate
from nas.runs.consistency import require_consistent
from nas.runs.data_seen import hold_to_data
from nas.runs.earlier import not_taken_over, read_earlier, take_over
from nas.runs.folder import TERMS, RunFolder
from nas.runs.gathering import gather_winners
from nas.runs.initial_weights import hold_to_initial_weights
from nas.runs.spent import Stopwatch
from nas.runs.table import hold_to_table
from nas.runs.terms import keep_terms, require_terms
from nas.runs.unreached import give_up
from nas.runs.warm_start import keep_warm_start, read_warm_start
from nas.search.cluster.address import ADDRESS_VARIABLE
from nas.search.cluster.nodes import Resources
from nas.search.cluster.session import joined_ray, own_ray
from nas.search.cluster.workers import (
    require_nodes,
    resources_of_nodes,
)
from nas.search.console import Console
from nas.search.finish.finishing import certify_each, last_stages, prune_company
from nas.search.live_report import live_report
from nas.search.measure.comparable import leave_out_other_devices, require_same_device
from nas.search.measure.narrowest import Narrowest, frontier
from nas.search.measure.on_cluster import certifier_of_cluster, timing_of_cluster
from nas.search.measure.remembered import RememberedTiming
from nas.search.measure.timing import CertifierOf, Timing, TimingOf, local_timing
from nas.search.propose.deadline import Deadline
from nas.search.propose.fill import NEARLY_FULL
from nas.search.propose.limits import above_the_space, limits_of, widest
from nas.search.propose.proposals import Proposals
from nas.search.search import Candidate, Search
from nas.search.train.loggers import require_loggers
from nas.search.train.placement import resources_here, with_more_threads, with_shared_gpus, workers_for
from nas.search.train.stages import candidates, train
from nas.study import Study
from space.errors import BudgetError, UserError


def search(run: RunFolder, *, address: str | None = None) -> dict[Budget, Certificate]:
    """Answer the run's study, going on from what its folder holds; a certificate for each budget that has a winner.

    `address` is that of a Ray cluster to train on, whose nodes must see the run's folder under the same path. Earlier
    runs that the folder names and has not taken over yet are taken over first.

    Raises: BudgetError when no network meets the budget; UserError when no candidate finished its training, and for an
    earlier run that cannot be compared.
    """
    with Stopwatch(run) as stopwatch, contextlib.ExitStack() as session:
        if address:
            session.enter_context(joined_ray(address))
        timing_of, certifier_of = _timing_and_certifier(joined=bool(address))
        nodes = resources_of_nodes() if address else [resources_here()]
        search = _opened(run, nodes, joined=bool(address))
        if address:
            require_nodes(
                run.study_path, search.dataset, search.study.data.root, search.workers.device, search.console.step
            )
        else:
            dali_works(search.workers.device)  # before a trial needs it, and while its warning can be seen
            if elsewhere := os.environ.get(ADDRESS_VARIABLE):
                search.console.step(
                    f"train   on this machine; --address auto trains on {ADDRESS_VARIABLE}, {elsewhere}"
                )
        search = with_shared_gpus(search, nodes)
        search.console.step(f"train   {search.workers}")
        patience = search.study.patience_seconds
        statistic = search.budgets.largest.statistic
        with timing_of(
            search.targets, search.study.data.size, search.num_classes, patience_seconds=patience, statistic=statistic
        ) as fresh:
            if changed := require_same_device(run, fresh.environment):
                search.console.step(f"note    {changed}: latencies timed from now on may differ from earlier ones")
            if left_out := leave_out_other_devices(run, fresh.environment):
                latencies = counted(left_out, "latency of an earlier run is", "latencies of earlier runs are")
                search.console.step(f"note    {latencies} of another device and left out")
            timing = RememberedTiming(fresh, read_earlier(run).latencies)
            for reason in timing.left_out():
                search.console.step(f"note    {reason}")
            new, narrowest = not run.trials(), Narrowest(timing, search.quick, search.console.progress)
            if search.study.frontier:
                search = _on_frontier(search, narrowest)
            measured = _require_reachable(search, narrowest)
            table = hold_to_table(run, functools.partial(_table_of, search, timing, measured))
            _measure_published(search, timing, table)
            if new:
                _say_if_too_large(search, timing)
            plan, budgets = search.study.search, len(search.study.asked)

            def later(trainings: int) -> Search:  # nodes of a cluster may be lost by then
                now = resources_of_nodes() if address else nodes
                return with_more_threads(search, now, max(trainings, len(plan.tried_epochs)))

            most = budgets * plan.finalists + len(plan.company)
            finishing, pruning = later(most), later(budgets * plan.pruned)
            deadline = Deadline(search, stopwatch, finishing.workers)
            proposals = Proposals(search, timing, table, deadline if plan.minutes else None)
            if not address:  # started after the timings above, which it would disturb
                session.enter_context(own_ray(search.workers, finishing.workers, pruning.workers))
            with live_report(run) as report:

                def ended() -> None:
                    stopwatch.keep()
                    report()

                stages = [lambda: candidates(search, proposals)]
                if finishing.workers != search.workers:  # these need processes of their own
                    train(search, stages, ended, timing.halt)
                    finishing, stages = later(most), []
                    deadline = Deadline(search, stopwatch, finishing.workers)
                    search.console.step(f"train   {finishing.workers}, now that no more candidates are proposed")
                train(finishing, [*stages, *last_stages(finishing, deadline.epochs_in_time)], ended, timing.halt)
                prune_company(later(budgets * plan.pruned), timing, table, ended)
        certificates = certify_each(search, functools.partial(certifier_of, patience_seconds=patience), stopwatch)
    if left := gather_winners(run, search.study):
        search.console.step(f"note    {left}")
    _report(search, certificates)
    return certificates


def _timing_and_certifier(*, joined: bool) -> tuple[TimingOf, CertifierOf]:
    """What times candidates and certifies winners: this machine, or the timing node of a joined cluster, if any."""
    if joined:
        return timing_of_cluster(), certifier_of_cluster()
    return local_timing, Meter


def _opened(run: RunFolder, nodes: Sequence[Resources], *, joined: bool) -> Search:
    """Check the run's study and data, and make its `Search`. A default target is written into the study, so that the
    run's folder says on what its candidates were timed.
    """
    study = run.study()
    if study.target:
        _require_target(study, joined=joined)  # before data are read
    require_consistent(run, study)
    require_terms(run, study)
    require_loggers(study.search.loggers)
    console, guard = Console(run, study), lane.shared_on("cpu")
    dataset = load(study.data, guard=guard, progress=console.progress)
    console.step(f"look    at {len(dataset.train)} training and {len(dataset.validation)} validation images")
    with console.progress.over("looked at", len(dataset.train) + len(dataset.validation)):
        findings = check(dataset, guard=guard, count=console.progress.count)
    hold_to_initial_weights(run.root, study.recipe.init, begun=True, trained=bool(run.trials()))
    hold_to_data(run.root, findings.fingerprint, root=study.data.root, begun=bool(run.trials()))
    if not study.target:
        target = default_target()
        study = replace(study, target=str(replace(target, precision="fp32") if study.precisions else target))
        run.write_study(study)
    if keep_terms(run, study):
        console.step(
            f"note    {TERMS} is missing, as in runs of earlier versions: the recipe and precisions in study.yaml are "
            "taken for those that the candidates were trained and timed with"
        )
    keep_warm_start(run, study)
    _require_target(study, joined=joined)
    workers = workers_for(run, study, nodes, joined=joined)
    search = Search(run=run, study=study, dataset=dataset, workers=workers, console=console)
    console.question(search.target, findings)
    _opening_notes(search)
    if earlier := not_taken_over(run):
        for line in take_over(run, study, findings.fingerprint, earlier):
            console.step(line)
    return search


def _opening_notes(search: Search) -> None:
    """Print which known networks the sampler begins with, and which ones it is not shown."""
    run, study, console = search.run, search.study, search.console
    kept, points = read_warm_start(run), study.architectures()
    if kept.count and not run.trials():
        inside = len(kept.inside(points))
        console.step(f"begin   with {inside} of {kept.count} networks that were trained on {kept.trained_on}")
    for name in study.search.seeds:
        if points.closest_genotype(space.load(name)) is None:
            console.step(f"note    {name} has no close match in the study's space: it is not shown to the sampler")
    proposed = [trial for trial in run.trials() if trial.genotype and trial.origin != "seed"]
    if outside := sum(trial.answers_in(points) is None for trial in proposed):
        trials = counted(outside, "trial of the run is", "trials of the run are")
        console.step(f"note    {trials} no longer in the study's space, and not shown to the sampler")


def _require_target(study: Study, *, joined: bool) -> None:
    """Check the study's target.

    Raises: UserError for a target that is misspelt, does not go with several precisions, or cannot be timed here; on a
    joined cluster the last is not checked, since another node may time.
    """
    target = parse_target(study.target)
    if study.precisions and target.on_cuda:
        raise UserError(
            f"precisions: expected a target on a CPU, where all precisions are ratios to one reference, got "
            f"{study.target}; name the precision there instead, as in tensorrt:fp16@cuda:0"
        )
    if not joined:
        require_one(target.in_precisions(study.precisions))


def _require_reachable(search: Search, narrowest: Narrowest) -> list[Latency]:
    """Check, before anything is trained for a budget, that the narrowest networks can meet it; returns their latencies.
    Of several budgets, one that cannot be met is given up.

    Raises: BudgetError with the lowest latency reached, when no budget can be met.
    """
    begun = search.run.trials()
    fresh = [budget for budget in search.budgets if not any(trial.is_for(budget) for trial in begun)]
    if not fresh:
        return []
    refused = {}
    for budget in fresh:
        try:
            narrowest.require(budget, search.target)
        except BudgetError as error:
            refused[budget] = error
    if refused.keys() == set(search.budgets):
        raise refused[search.budgets.largest]
    for budget, reason in refused.items():
        if not narrowest.refutes(budget):
            continue  # the machine is busy: candidates will show whether the budget can be met
        search.console.step(f"note    {budget} is given up, the others go on: {reason}")
        give_up(search.run, budget, str(reason), searched=False)
    return narrowest.latencies()


def _on_frontier(search: Search, narrowest: Narrowest) -> Search:
    """The search with a frontier of budgets, from the latency of the fastest network up to the study's budget."""
    budgets = frontier(search.budgets.largest, narrowest.lowest(search.budgets.largest))
    search.console.step(f"budgets {budgets}")
    study = search.study.asking(tuple(map(str, budgets)))
    search.run.write_study(study)
    search.console.asks(study)
    return replace(search, study=study)


def _table_of(search: Search, timing: Timing, measured: Sequence[Latency]) -> LatencyTable | None:
    """The latency table kept for the device; else one of the package, scaled by the latency of the reference network
    beside the `measured` ones; None where there is neither. With several precisions, estimates begin with those of the
    highest one, and measurements in faster ones correct them.
    """
    kept = timing.kept_table()
    if kept is not None and (words := words_of_host(kept, timing.environment)):
        search.console.step(f"note    {words}")
    if kept is not None or not measured:
        return kept
    table, words = table_instead(timing.targets(), search.study.data.size, measured[0].reference_milliseconds)
    if words:
        search.console.step(f"note    {words}")
    return table


def _measure_published(search: Search, meter: Measures, table: LatencyTable | None) -> None:
    """Time the published networks that the study names, in turns and at their own width, once per run. Without a
    latency table all published networks are timed: estimates for this device begin with their latencies.
    """
    run, console, plan, largest = search.run, search.console, search.study.search, search.budgets.largest
    known = {trial.name: trial for trial in run.company()}
    named = {*plan.company, *plan.seeds}
    wanted = {*known, *(space.published() if table is None else named)}
    missing = [name for name in space.published() if name in wanted and name not in known]
    if missing:
        console.step(f"time    {counted(len(missing), 'published network')}, in turns")
    with console.progress.over("timed in turns", 0):
        found = time_each(meter, list(map(space.load, missing)), within=search.quick)
    latencies = dict(zip(missing, found, strict=True))
    for number, name in enumerate(space.published(), 1):
        if name not in wanted:
            continue
        candidate = Candidate(name=name, origin="company", architecture=space.load(name), parent=name)
        if name in known:
            feasible = known[name].inside(largest)
            trial = replace(known[name], number=number, feasible=feasible, budget_milliseconds=largest.milliseconds)
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


def _say_if_too_large(search: Search, meter: Measures) -> None:
    """Print a note for each budget that no allowed network is slow enough to use. Only checked where every published
    network that was timed is inside the budget.
    """
    company = search.run.company()
    budgets = [budget for budget in search.budgets if company and all(trial.inside(budget) for trial in company)]
    if not budgets:
        return
    allows = limits_of(search.study, search.num_classes)
    largest = [widest(space.load(name), allows) for name in search.study.search.seeds or space.published()]
    with search.console.progress.over("the widest networks timed in turns", 0):
        found = time_each(meter, largest, within=search.quick)
    statistic = search.budgets.largest.statistic
    milliseconds = [each.milliseconds(statistic) for each in found if not isinstance(each, UnmeasuredError)]
    highest = max(milliseconds, default=math.inf)
    for budget in budgets:
        if highest < NEARLY_FULL * budget.milliseconds:
            search.console.step(f"note    {above_the_space(budget, highest, search.study)}")


def _report(search: Search, certificates: Mapping[Budget, Certificate]) -> None:
    from nas.report import summarize
    from nas.report.page import write_summary
    from nas.report.sentences import efforts
    from nas.report.terminal import frontier_table, leaderboard_table

    with lane.shared():
        summary = summarize(search.run)
        page = write_summary(search.run, summary)
    board = "\n".join([leaderboard_table(summary), "", *efforts(summary)])
    if search.study.budgets:
        search.console.answers(frontier_table(summary), board, certificates, page)
    else:
        search.console.answer(board, certificates[search.budgets.largest], page)
