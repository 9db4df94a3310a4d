"""The way through: is the budget reachable, propose, measure, train, finish, certify, report.

Each step reads what the run's folder already holds and adds what is missing, so that continuing a run is running it
again.
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
from nas.host.cores import usable_cores
from nas.latency import Meter, default_target, parse_target
from nas.latency.budget import Budget
from nas.latency.careful import time_each
from nas.latency.estimates.shipped import table_instead
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine import lane
from nas.latency.machine.gpu import training_device
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.latency.runtimes import require_one
from nas.runs.beginning import hold_to_beginning
from nas.runs.certificate import Certificate
from nas.runs.consistency import require_consistent
from nas.runs.data_seen import hold_to_data
from nas.runs.earlier import not_taken_over, read_earlier, take_over
from nas.runs.folder import TERMS, RunFolder
from nas.runs.gathering import gather_winners
from nas.runs.spent import Stopwatch
from nas.runs.table import hold_to_table
from nas.runs.terms import keep_terms, require_terms
from nas.runs.unreached import give_up
from nas.runs.warm_start import keep_warm_start, read_warm_start
from nas.search.cluster.address import ADDRESS_VARIABLE
from nas.search.cluster.nodes import Resources
from nas.search.cluster.session import joined_ray, own_ray
from nas.search.cluster.workers import (
    most_at_once,
    probe_on_cluster,
    require_nodes,
    resources_of_nodes,
    workers_of,
)
from nas.search.console import Console
from nas.search.finish.finishing import certify_each, last_stages, prune_company
from nas.search.live_report import live_report
from nas.search.measure.comparable import leave_out_other_devices, require_same_device
from nas.search.measure.narrowest import Narrowest, frontier
from nas.search.measure.on_cluster import RESOURCE, certifier_of_cluster, timing_of_cluster
from nas.search.measure.remembered import RememberedTiming
from nas.search.measure.timing import CertifierOf, Timing, TimingOf, local_timing
from nas.search.propose.deadline import Deadline
from nas.search.propose.fill import NEARLY_FULL
from nas.search.propose.limits import above_the_space, limits_of, widest
from nas.search.propose.proposals import Proposals
from nas.search.search import Candidate, Search, Workers
from nas.search.train.loggers import require_loggers
from nas.search.train.sharing import probe
from nas.search.train.stages import candidates, train
from nas.study import AUTO, Study
from space.errors import BudgetError, UserError


def search(run: RunFolder, *, address: str | None = None) -> dict[Budget, Certificate]:
    """Answer the run's study, from wherever its folder stands: what is certified for each budget that something is
    inside of.

    `address`: a Ray cluster to train on; the run's folder must be visible to its nodes under the same path. Earlier
    runs that the folder names and has not taken over yet are taken over first.

    Raises: BudgetError when nothing reaches the budget; UserError when no candidate finished its training, and for an
    earlier run that cannot be compared.
    """
    with Stopwatch(run) as stopwatch, contextlib.ExitStack() as session:
        timing_of: TimingOf = local_timing
        certifier_of: CertifierOf = Meter
        if address:  # the cluster may have a node that times
            session.enter_context(joined_ray(address))
            timing_of, certifier_of = timing_of_cluster(), certifier_of_cluster()
            nodes = resources_of_nodes()
            asked = _opened(run, nodes, joined=True)
            require_nodes(
                run.study_path, asked.dataset, asked.study.data.root, asked.workers.device, asked.console.step
            )
        else:
            nodes = [_resources_here()]
            asked = _opened(run, nodes, joined=False)
            dali_works(asked.workers.device)  # before a trial needs it, and where its answer is seen
            if elsewhere := os.environ.get(ADDRESS_VARIABLE):
                asked.console.step(f"train   on this machine; --address auto trains on {ADDRESS_VARIABLE}, {elsewhere}")
        asked = _sharing_gpus(asked, nodes)
        asked.console.step(f"train   {asked.workers}")
        patience = asked.study.patience_seconds
        statistic = asked.budgets.largest.statistic
        with timing_of(
            asked.targets, asked.study.data.size, asked.num_classes, patience_seconds=patience, statistic=statistic
        ) as fresh:
            if changed := require_same_device(run, fresh.environment):
                asked.console.step(f"note    {changed}: what is timed from now on may differ from what was before")
            if left_out := leave_out_other_devices(run, fresh.environment):
                asked.console.step(f"note    {left_out} latencies of earlier runs are of another device and left out")
            timing = RememberedTiming(fresh, read_earlier(run).latencies)
            for reason in timing.left_out():
                asked.console.step(f"note    {reason}")
            new, narrowest = not run.trials(), Narrowest(timing, asked.quick, asked.console.progress)
            if asked.study.frontier:
                asked = _on_frontier(asked, narrowest)
            measured = _require_reachable(asked, narrowest)
            table = hold_to_table(run, functools.partial(_table_of, asked, timing, measured))
            _measure_published(asked, timing, table)
            if new:
                _say_if_too_large(asked, timing)
            deadline = Deadline(asked, stopwatch) if asked.study.search.minutes else None
            proposals = Proposals(asked, timing, table, deadline)
            plan, budgets = asked.study.search, len(asked.study.asked)
            finishing = _few_at_once(asked, nodes, budgets * plan.finalists + len(plan.company))
            pruning = _few_at_once(asked, nodes, budgets * plan.pruned)
            if not address:  # a Ray of our own would only disturb the timings above
                session.enter_context(own_ray(asked.workers, finishing.workers, pruning.workers))
            with live_report(run) as report:

                def ended() -> None:
                    stopwatch.keep()
                    report()

                stages = [lambda: candidates(asked, proposals)]
                if finishing.workers != asked.workers:  # others need processes of their own
                    train(asked, stages, ended, timing.halt)
                    asked.console.step(f"train   {finishing.workers}, now that all is proposed")
                    stages = []
                train(finishing, [*stages, *last_stages(finishing)], ended, timing.halt)
                prune_company(pruning, timing, table, ended)
        certificates = certify_each(asked, functools.partial(certifier_of, patience_seconds=patience), stopwatch)
    if left := gather_winners(run, asked.study):
        asked.console.step(f"note    {left}")
    _report(asked, certificates)
    return certificates


def _opened(run: RunFolder, nodes: Sequence[Resources], *, joined: bool) -> Search:
    """What the run is asked, with its target spelled out, so that the run's folder says where it was timed."""
    study = run.study()
    if study.target:
        _require_target(study, joined=joined)  # before data are read
    require_consistent(run, study)
    require_terms(run, study)
    require_loggers(study.search.loggers)
    console, guard = Console(run, study), lane.shared_on("cpu")
    dataset = load(study.data, guard=guard, told=console.progress)
    console.step(f"look    at {len(dataset.train)} training and {len(dataset.validation)} validation images")
    with console.progress.over("looked at", len(dataset.train) + len(dataset.validation)):
        findings = check(dataset, guard=guard, count=console.progress.count)
    hold_to_beginning(run.root, study.recipe.init, begun=True, trained=bool(run.trials()))
    hold_to_data(run.root, findings.fingerprint, root=study.data.root, begun=bool(run.trials()))
    if not study.target:
        target = default_target()
        study = replace(study, target=str(replace(target, precision="fp32") if study.precisions else target))
        run.write_study(study)
    if keep_terms(run, study):
        console.step(
            f"note    {TERMS} is missing, as in runs of earlier versions: study.yaml is trusted to have the recipe and "
            "precisions that the candidates were trained and timed with"
        )
    keep_warm_start(run, study)
    _require_target(study, joined=joined)
    workers = _workers_of(run, study, nodes, joined=joined)
    asked = Search(run=run, study=study, dataset=dataset, workers=workers, console=console)
    console.question(asked.target, findings)
    kept = read_warm_start(run)
    if kept.count and not run.trials():
        inside = len(kept.inside(study.architectures()))
        asked.console.step(f"begin   with {inside} of {kept.count} networks that were trained on {kept.trained_on}")
    points = study.architectures()
    if unlike := [name for name in study.search.seeds if points.closest_genotype(space.load(name)) is None]:
        asked.console.step(
            f"note    nothing in the study's space is close to {', '.join(unlike)}: trained whole, and the sampler is "
            "not told"
        )
    proposed = [each for each in run.trials() if each.genotype and each.origin != "seed"]
    if outside := sum(each.answers_in(points) is None for each in proposed):
        asked.console.step(
            f"note    the study's space no longer holds {outside} trials: the sampler is not told of them"
        )
    if earlier := not_taken_over(run):
        for words in take_over(run, study, findings.fingerprint, earlier):
            asked.console.step(words)
    return asked


def _require_target(study: Study, *, joined: bool) -> None:
    """Raises: UserError for a target that is misspelt, cannot be asked for in several precisions, or cannot be timed
    here; on a cluster another node may time.
    """
    target = parse_target(study.target)
    if study.precisions and target.on_cuda:
        raise UserError(
            f"precisions: expected a target on a CPU, where all precisions are ratios to one reference, got "
            f"{study.target}; name the precision there instead, as in tensorrt:fp16@cuda:0"
        )
    if not joined:
        require_one(target.in_precisions(study.precisions))


def _resources_here() -> Resources:
    import torch

    return {"CPU": usable_cores(), "GPU": torch.cuda.device_count() if training_device() == "cuda" else 0}


def _workers_of(run: RunFolder, study: Study, nodes: Sequence[Resources], *, joined: bool) -> Workers:
    """Who trains the candidates; of a run that goes on, as it began."""
    plan, target, began = study.search, parse_target(study.target), run.order()
    per_gpu = plan.trials_per_gpu if isinstance(plan.trials_per_gpu, int) else 1
    timing_node = any(RESOURCE in node for node in nodes)
    on_gpu_here = target.on_cuda and not target.host  # and on another one is trained meanwhile, where there is one
    others = on_gpu_here and sum(node.get("GPU", 0) for node in nodes) > 1
    if others and not joined:
        nodes = [{**node, "CPU": max(1, node["CPU"] - 1)} for node in nodes]
    threads = 0 if began is None else began.threads
    most = most_at_once(study) if began is None or threads else began.ahead + 1
    return replace(
        workers_of(nodes, plan.concurrent, per_gpu, most=most, threads=threads),
        joined=joined,
        timed_beside=bool(target.host) or timing_node or others,
        leaves_core_of=target.device if others else "",
        timing_node=timing_node,
    )


def _sharing_gpus(search: Search, nodes: Sequence[Resources]) -> Search:
    """The same search with so many trainings on each GPU as a probe finds worth it, where the study leaves it to that.
    The run's folder says how many, so that it goes on with them.
    """
    study, workers = search.study, search.workers
    if study.search.trials_per_gpu != AUTO or workers.device == "cpu":
        return search
    search.console.step("probe   how many trainings may share a GPU")
    probed = probe_on_cluster if workers.joined else probe
    found = probed(study, search.num_classes, workers.device)
    search.console.step(f"        {found.count}: {found.words}")
    study = replace(study, search=replace(study.search, trials_per_gpu=found.count))
    search.run.write_study(study)
    return replace(search, study=study, workers=_workers_of(search.run, study, nodes, joined=workers.joined))


def _few_at_once(search: Search, nodes: Sequence[Resources], count: int) -> Search:
    """The same search with so many trainings at a time on CPUs, where it is not to be fewer: they wait for nothing that
    is to be found out, and each has the threads that this leaves.
    """
    workers, concurrent = search.workers, search.study.search.concurrent
    if workers.device != "cpu":
        return search
    count = max(2, count)  # two threads for the only one would change what runs on two cores end with
    found = workers_of(nodes, min(concurrent or count, count))
    if found.threads == workers.threads and found.concurrent <= workers.concurrent:
        return search
    return replace(search, workers=replace(workers, concurrent=found.concurrent, threads=found.threads))


def _require_reachable(search: Search, narrowest: Narrowest) -> list[Latency]:
    """Say that a budget cannot be met before anything is trained for it, or what the narrowest networks take. Of
    several budgets, one that cannot be met is given up.

    Raises: BudgetError with the lowest latency reached, when none of them can be met.
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
            continue  # the machine is busy: candidates will tell
        search.console.step(f"note    {budget} is given up, the others go on: {reason}")
        give_up(search.run, budget, str(reason), searched=False)
    return narrowest.latencies()


def _on_frontier(search: Search, narrowest: Narrowest) -> Search:
    """The same search for a frontier of budgets, from what the fastest network takes to the one that is asked for."""
    budgets = frontier(search.budgets.largest, narrowest.lowest(search.budgets.largest))
    search.console.step(f"budgets {budgets}")
    study = search.study.asking(tuple(map(str, budgets)))
    search.run.write_study(study)
    search.console.asks(study)
    return replace(search, study=study)


def _table_of(search: Search, timing: Timing, measured: Sequence[Latency]) -> LatencyTable | None:
    """The latency table that is kept of the device; else the one that comes with the package, made for the device by
    what the reference network took beside those that were `measured`. None where there is neither. In several
    precisions estimates begin with the highest; those that are faster correct them.
    """
    kept = timing.kept_table()
    if kept is not None or not measured:
        return kept
    table, words = table_instead(timing.targets(), search.study.data.size, measured[0].reference_milliseconds)
    if words:
        search.console.step(f"note    {words}")
    return table


def _measure_published(search: Search, meter: Measures, table: LatencyTable | None) -> None:
    """Time the published networks that the study names at their own width, once per run; they take turns. Without a
    latency table all of them are needed: what they take is what estimates of this device begin with.
    """
    run, console, plan, largest = search.run, search.console, search.study.search, search.budgets.largest
    known = {trial.name: trial for trial in run.company()}
    named = {*plan.company, *plan.seeds}
    wanted = {*known, *(space.published() if table is None else named)}
    missing = [name for name in space.published() if name in wanted and name not in known]
    if missing:
        console.step(f"time    {len(missing)} published networks, in turns")
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
    """Say that a budget is more than the space can use. Looked at only where every network that was timed is inside."""
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
