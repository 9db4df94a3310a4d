"""The way through: is the budget reachable, propose, measure, train, finish, certify, report.

Each step reads what the run's folder already holds and adds what is missing, so that continuing a run is running it
again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

import space
from nas.data import Dataset, check, load
from nas.latency import Meter, MeterOf, default_target, parse_target
from nas.latency.estimates.calibration import kept_table
from nas.latency.protocol import WITHIN
from nas.latency.record import Budget, Latency
from nas.latency.target import Target
from nas.prune.judge import Judge
from nas.prune.plan import Plan
from nas.prune.pruner import Pruner
from nas.prune.tuning import FineTuning
from nas.runs.folder import Certificate, Phase, RunFolder, Trial
from nas.search.console import Console
from nas.search.cutting import prune_over_budget
from nas.search.fill import Measure
from nas.search.proposals import Proposals, measured_trial
from nas.search.timing import meter_of_cluster
from nas.search.tuning import Cluster, Events, Job, ray_session, recipe_of, run_jobs
from nas.study import Study
from space.architecture import Architecture
from space.errors import BudgetError, UserError
from space.scale import scale_width

QUICK = 2.0  # times as unsure are latencies on the way to a candidate's width as those that confirm it
SMALLEST = 0.03  # width factor of the networks that tell whether a budget can be reached at all


def search(run: RunFolder, *, address: str | None = None) -> Certificate:
    """Answer the run's study, from wherever its folder stands.

    `address`: a Ray cluster to train on; the run's folder must be visible to its nodes under the same path.

    Raises: BudgetError when nothing reaches the budget; UserError when no candidate finished its training.
    """
    study = run.study()
    budget = Budget.parse(study.budget)
    target = parse_target(study.target) if study.target else None
    dataset = load(study.data)
    check(dataset)
    if target is None:
        target = default_target()
        study = replace(study, target=str(target))  # spelled out, so that the run's folder says where it was timed
        run.write_study(study)
    console = Console(run, study, budget)
    console.question(target)
    cluster = _cluster(study)
    with contextlib.ExitStack() as session:
        meter_of: MeterOf = Meter
        if address:  # the cluster may have a node that times
            session.enter_context(ray_session(address, cluster.concurrent))
            meter_of = meter_of_cluster()
        with meter_of(target, study.data.size, dataset.num_classes) as meter:

            def measure(architectures: Sequence[Architecture]) -> list[Latency]:
                return meter.measure_together(architectures, within=QUICK * study.latency_within)

            def confirm(architecture: Architecture) -> Latency:
                return meter.measure(architecture, within=study.latency_within)

            if not run.trials():
                _require_reachable(budget, target, measure)
            _measure_company(run, study, budget, measure, dataset.num_classes, console)
            table = kept_table(meter) if isinstance(meter, Meter) else None
            proposals = Proposals(
                run,
                study,
                budget,
                dataset.num_classes,
                console,
                measure=measure,
                confirm=confirm,
                table=table,
            )
            if not address:  # a Ray of our own would only disturb the timings above
                session.enter_context(ray_session(None, cluster.concurrent))
            _search_phase(run, study, proposals, cluster, console)
            _finish_phase(run, study, budget, cluster, console)
            if study.search.finish_epochs:
                size, within = study.data.size, study.latency_within
                pruner = Pruner(
                    judge=Judge(meter, size, dataset.num_classes, table=table, within=within),
                    budget=budget,
                    plan=Plan(epochs=0),
                    tuning=FineTuning(dataset=dataset, recipe=study.recipe, device=cluster.device),
                    said=console.step,
                )
                pruned = prune_over_budget(run, study, budget, pruner, dataset.num_classes, console)
                _run_all(run, study, pruned, "finish", cluster, console)
        certificate = _certify(run, study, budget, target, dataset, meter_of, console)
    _report(run, certificate, console)
    return certificate


def _require_reachable(budget: Budget, target: Target, measure: Measure) -> None:
    """Say that a budget cannot be met before anything is trained.

    Raises: BudgetError with the lowest latency reached.
    """
    smallest = [
        scale_width(space.load(name), SMALLEST) for name in ("ndnet45-fcn32", "swiftnet-rn18", "erfnet-encoder")
    ]
    lowest = min(latency.milliseconds(budget.statistic) for latency in measure(smallest))
    if lowest > budget.milliseconds:
        raise BudgetError(
            f"expected a budget that {target} can meet, got {budget}; the narrowest networks of the space take "
            f"{lowest:.2f} ms here; raise the budget or lower the input size"
        )


def _measure_company(
    run: RunFolder, study: Study, budget: Budget, measure: Measure, num_classes: int, console: Console
) -> None:
    """Time every published network at its own width, once per run; they take turns."""
    known = {trial.name: trial.latency for trial in run.company()}
    missing = [name for name in space.published() if name not in known]
    if missing:
        console.step(f"time    {len(missing)} published networks, in turns")
        known |= dict(zip(missing, measure([space.load(name) for name in missing]), strict=True))
    for number, name in enumerate(space.published(), 1):
        architecture, latency = space.load(name), known[name]
        trial = measured_trial(number, name, "company", architecture, latency, budget, study, num_classes, parent=name)
        run.write_trial(trial)
        if name in missing:
            console.company(trial)


def _cluster(study: Study) -> Cluster:
    import torch

    if torch.cuda.is_available():
        concurrent = study.search.concurrent or torch.cuda.device_count()
        return Cluster(concurrent=concurrent, threads=max(1, (os.cpu_count() or 1) // concurrent), device="cuda")
    cores = len(os.sched_getaffinity(0))
    concurrent = min(study.search.concurrent or cores, cores)
    return Cluster(concurrent=concurrent, threads=max(1, cores // concurrent), device="cpu")


def _search_phase(run: RunFolder, study: Study, proposals: Proposals, cluster: Cluster, console: Console) -> None:
    """Train candidates as they are proposed; weak ones stop early."""

    def next_job() -> Job | None:
        trial = proposals.next()
        return None if trial is None else Job(trial=trial, phase="search")

    def end(job: Job, epoch: int, miou: float | None, error: str) -> None:
        epochs = study.recipe.epochs
        proposals.finished(job.trial, miou, stopped=not error and epoch < epochs, failed=error)
        console.ended(job.trial, "search", epoch, epochs, error)

    events = Events(epoch=_epoch_event(study, console), end=end)
    run_jobs(run, next_job, events, cluster, stop_weak=study.search.stop_weak, epochs=study.recipe.epochs)


def _finish_phase(run: RunFolder, study: Study, budget: Budget, cluster: Cluster, console: Console) -> None:
    """Train the finalists to the end, and the company that the study asks for as long as a finalist."""
    company = [trial for trial in run.company() if trial.name in study.search.company]
    _run_all(run, study, company, "search", cluster, console)
    if study.search.finish_epochs:
        _run_all(run, study, [*finalists(run, study, budget), *company], "finish", cluster, console)


def _run_all(
    run: RunFolder, study: Study, trials: Sequence[Trial], phase: Phase, cluster: Cluster, console: Console
) -> None:
    waiting = [trial for trial in trials if not trial.failed and not run.progress(trial, phase).done]
    if not waiting:
        return
    jobs = iter([Job(trial=trial, phase=phase) for trial in waiting])
    epochs = recipe_of(study, phase).epochs

    def end(job: Job, epoch: int, miou: float | None, error: str) -> None:
        if error:
            run.write_trial(replace(job.trial, failed=error))
        console.ended(job.trial, phase, epoch, epochs, error)

    events = Events(epoch=_epoch_event(study, console), end=end)
    run_jobs(run, lambda: next(jobs, None), events, cluster, stop_weak=False, epochs=epochs)


def _epoch_event(study: Study, console: Console) -> Callable[[Job, int, float], None]:
    def epoch(job: Job, epoch: int, miou: float) -> None:
        console.epoch(job.trial, job.phase, epoch, recipe_of(study, job.phase).epochs, miou)

    return epoch


def finalists(run: RunFolder, study: Study, budget: Budget) -> list[Trial]:
    """The best of the candidates inside the budget that were trained through the search phase, best first.

    Raises: UserError when there is none.
    """
    finished = [
        trial
        for trial in run.trials()
        if budget.admits(trial.latency) and not trial.failed and run.progress(trial, "search").done
    ]
    if not finished:
        raise UserError(
            f"expected a candidate inside {budget} whose training finished, got none of {len(run.trials())}; "
            f"see {run.root}/trials, then give the search more trials or a larger budget"
        )
    finished.sort(key=lambda trial: run.progress(trial, "search").miou or 0.0, reverse=True)
    return finished[: study.search.finalists]


def _pruned(run: RunFolder, budget: Budget) -> list[Trial]:
    """Cuts inside the budget whose fine-tuning is done."""
    inside = [each for each in run.trials() if each.origin == "pruned" and budget.admits(each.latency)]
    return [each for each in inside if not each.failed and run.progress(each, "finish").done]


def _certify(
    run: RunFolder,
    study: Study,
    budget: Budget,
    target: Target,
    dataset: Dataset,
    meter_of: MeterOf,
    console: Console,
) -> Certificate:
    """Measure the finished artefacts again, best first, until one passes; failing all, the best says that it fails."""
    competing = [*finalists(run, study, budget), *_pruned(run, budget)]
    ranked = sorted(competing, key=lambda trial: run.best_miou(trial) or 0.0, reverse=True)
    for trial in ranked:
        console.step(f"certify {trial.name}")
        certificate = _write(run, study, trial, budget, target, dataset, meter_of)
        if certificate.passed:
            return certificate
        console.step(f"        {certificate.latency} is over {budget}")
    return _write(run, study, ranked[0], budget, target, dataset, meter_of)


def _write(
    run: RunFolder, study: Study, trial: Trial, budget: Budget, target: Target, dataset: Dataset, meter_of: MeterOf
) -> Certificate:
    import torch

    from nas.runs.trained import Labelling
    from nas.runs.winner import write_winner
    from nas.training.weights import load_weights

    weights = load_weights(run.weights_path(trial))
    device = "cuda" if torch.cuda.is_available() else "cpu"  # for the scores; the target may be another machine's
    return write_winner(
        run.winner,
        trial.architecture,
        weights,
        Labelling.of(dataset),
        dataset=dataset,
        target=target,
        budget=budget,
        device=device,
        within=min(study.latency_within, WITHIN),
        meter_of=meter_of,
    )


def _report(run: RunFolder, certificate: Certificate, console: Console) -> None:
    from nas.report import summarize, write_report
    from nas.report.terminal import leaderboard_table

    page = write_report(run)
    console.answer(leaderboard_table(summarize(run)), certificate, page)
