"""The end of a search: finalists are trained on, others are pruned into the budget, and the best is certified."""

from __future__ import annotations

from nas.latency import MeterOf
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures
from nas.latency.protocol import WITHIN
from nas.runs.certificate import Certificate
from nas.runs.trial import Trial
from nas.search.cutting import prune_over_budget, pruner_of
from nas.search.search import Search
from nas.search.training import train_all
from space.errors import UserError


def finish(search: Search, meter: Measures, table: LatencyTable | None) -> None:
    """Train the finalists to the end, the published networks that the study asks for as long as a finalist, and then
    what is pruned from those of them over the budget.
    """
    plan = search.study.search
    company = [trial for trial in search.run.company() if trial.name in plan.company]
    train_all(search, company, "search")
    if plan.finish_epochs:
        train_all(search, [*finalists(search), *company], "finish")
        train_all(search, prune_over_budget(search, pruner_of(search, meter, table)), "finish")


def finalists(search: Search) -> list[Trial]:
    """The best of the candidates inside the budget that were trained through the search phase, best first.

    Raises: UserError when there is none.
    """
    run, budget = search.run, search.budget
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
    return finished[: search.study.search.finalists]


def certify_best(search: Search, meter_of: MeterOf) -> Certificate:
    """Measure the finished networks again, best first, until one passes. Failing all, the best of those that may be
    inside the budget is certified as unsure, or else the best of all as over it.
    """
    competing = [*finalists(search), *_pruned(search)]
    ranked = sorted(competing, key=lambda trial: search.run.best_miou(trial) or 0.0, reverse=True)
    certificate, unsure = None, None
    for trial in ranked:
        search.console.step(f"certify {trial.name}")
        certificate = _write(search, trial, meter_of)
        if certificate.verdict == "PASS":
            return certificate
        if certificate.verdict == "UNSURE":
            unsure = unsure or trial
            search.console.step(f"        {certificate.latency} may be inside {search.budget}, or over it")
        else:
            search.console.step(f"        {certificate.latency} is over {search.budget}")
    chosen = unsure or ranked[0]
    if certificate is not None and chosen is ranked[-1]:  # the last one written
        return certificate
    return _write(search, chosen, meter_of)


def _pruned(search: Search) -> list[Trial]:
    """Cuts inside the budget whose fine-tuning is done."""
    run, budget = search.run, search.budget
    inside = [each for each in run.trials() if each.origin == "pruned" and budget.admits(each.latency)]
    return [each for each in inside if not each.failed and run.progress(each, "finish").done]


def _write(search: Search, trial: Trial, meter_of: MeterOf) -> Certificate:
    from nas.latency.machine.gpu import training_device
    from nas.runs.labelling import Labelling
    from nas.runs.winner import Certification, Finished, write_winner
    from nas.training.weights import load_weights

    return write_winner(
        search.run.winner,
        Finished(
            architecture=trial.architecture,
            weights=load_weights(search.run.weights_path(trial)),
            labelling=Labelling.of(search.dataset),
            dataset=search.dataset,
        ),
        Certification(
            target=search.target,
            budget=search.budget,
            device=training_device(),  # the target may be another machine's
            within=min(search.study.latency_within, WITHIN),
            meter_of=meter_of,
        ),
    )
