"""The end of a search: finalists are trained on, others are pruned into the budget, and the best is certified."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from nas.latency import MeterOf
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.certificate import Certificate, ComparedForm, Deployed
from nas.runs.trial import Trial
from nas.runs.winner import Certification, Finished, write_winner
from nas.search.cutting import prune_over_budget, pruner_of
from nas.search.measuring import CarefulGraphMeter
from nas.search.recipes import begin_finish, begin_tries, finish, tries
from nas.search.search import Search
from nas.search.training import Stage, train, unfinished
from space.errors import BudgetError, ExportError, TargetError, UnmeasuredError, UserError

if TYPE_CHECKING:
    from nas.quantization.verdicts import GivenUpError
    from space.network import Network


def last_stages(search: Search) -> list[Stage]:
    """What is trained after the candidates: the finalists to the end, and the published networks that the study asks
    for as long as a finalist.
    """
    plan = search.study.search
    company = [trial for trial in search.run.company() if trial.name in plan.company]
    stages: list[Stage] = [
        lambda: unfinished(search, company),
        lambda: unfinished(search, all_finalists(search)),  # again, should the weights of one be damaged
    ]
    if plan.finish_epochs:
        stages += [
            lambda: unfinished(search, begin_tries(search, all_finalists(search))),  # again, as above
            lambda: tries(search),
            lambda: unfinished(search, begin_finish(search, [*all_finalists(search), *company])),
            lambda: finish(search, [*all_finalists(search), *company]),
        ]
    return stages


def prune_company(search: Search, meter: Measures, table: LatencyTable | None) -> None:
    """Prune trained networks that are over a budget into it, where the study asks for that, and train what is left.

    Raises: HaltedError when something but a candidate broke a training.
    """
    if search.study.search.finish_epochs:
        budgets = search.budgets
        pruned = [each for one in budgets for each in prune_over_budget(search, pruner_of(search, meter, table, one))]
        if not all(each.failed or search.run.is_done(each, "finish") for each in pruned):
            train(search, [lambda: finish(search, pruned)])


def all_finalists(search: Search) -> list[Trial]:
    """Those of all budgets, each once.

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
    """The best of the candidates inside a budget that were trained through the search phase, best first.

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


def certify_each(search: Search, meter_of: MeterOf) -> dict[Budget, Certificate]:
    """Certify the best for every budget that the study asks for; those without a candidate are left out, and said.

    Raises: UserError when there is none at all.
    """
    found: dict[Budget, Certificate] = {}
    refused: UserError | None = None
    for budget, folder in search.run.winners(search.study).items():
        try:
            found[budget] = certify_best(search, meter_of, budget, folder)
        except (BudgetError, ExportError, UnmeasuredError) as error:
            if not search.study.asked.several:
                raise
            refused = error
            search.console.step(f"note    no winner for {budget}: {error}")
    if not found:
        assert refused is not None, "there is at least one budget"
        raise refused
    return found


def certify_best(search: Search, meter_of: MeterOf, budget: Budget, folder: Path) -> Certificate:
    """Measure the finished networks inside a budget again, best first, until one passes, and write it into `folder`.
    Failing all, the best of those that may be inside the budget is certified as unsure, or else the best of all as over
    it.

    One that cannot be exported or timed as it was trained is passed over. A lower precision that is not surely faster
    any more than full precision, which keeps the budget too, is given up for that.

    Raises: UserError when all are passed over.
    """
    from nas.quantization.verdicts import GivenUpError

    competing: list[Trial] = []
    deployed: dict[str, Deployed | None] = {}
    refused: UserError | None = None
    for trial in [*finalists(search, budget), *_pruned(search, budget)]:
        try:
            deployed[trial.architecture.key] = _deployed(search, trial)
            competing.append(trial)
        except UnmeasuredError as error:
            search.console.step(f"        {trial.name}: left out: {error}")
            refused = refused or error

    def miou(trial: Trial) -> float:
        form = deployed[trial.architecture.key]
        return (search.run.best_miou(trial) or 0.0) if form is None else form.scores.miou

    shipping: dict[str, _Shipping] = {}

    def write(trial: Trial) -> Certificate:
        key = trial.architecture.key
        if key not in shipping:
            shipping[key] = _shipping(search, trial, deployed[key], _certification(search, trial, meter_of, budget))
        try:
            return _write(search, trial, shipping[key], folder)
        except GivenUpError as error:
            search.console.step(f"        {shipping[key].certification.target} {error}: in full precision")
            shipping[key] = shipping[key].in_full_precision(error)
        return _write(search, trial, shipping[key], folder)

    ranked = sorted(competing, key=miou, reverse=True)
    certificates: dict[str, Certificate] = {}
    for trial in ranked:
        search.console.step(f"certify {trial.name}{f' for {budget}' if search.budgets.several else ''}")
        if words := _warning(search, trial):
            search.console.step(f"        {words}")
        try:
            certificate = write(trial)
        except (ExportError, UnmeasuredError) as error:
            search.console.step(f"        left out: {error}")
            refused = refused or error
            continue
        if certificate.verdict == "PASS":
            return certificate
        certificates[trial.architecture.key] = certificate
        maybe = certificate.verdict == "UNSURE"
        words = f"may be inside {budget}, or over it" if maybe else f"is over {budget}"
        search.console.step(f"        {certificate.latency} {words}")
    judged = [trial for trial in ranked if trial.architecture.key in certificates]
    if not judged:
        assert refused is not None, "there is at least one finalist"
        raise refused
    unsure = (trial for trial in judged if certificates[trial.architecture.key].verdict == "UNSURE")
    chosen = next(unsure, judged[0])
    if chosen is judged[-1]:  # the last one written
        return certificates[chosen.architecture.key]
    return write(chosen)


def _pruned(search: Search, budget: Budget) -> list[Trial]:
    """Cuts inside a budget whose fine-tuning is done."""
    run = search.run
    inside = [each for each in run.trials() if each.origin == "pruned" and each.inside(budget)]
    return [each for each in inside if not each.failed and run.progress(each, "finish").done]


@contextlib.contextmanager
def _careful(meter_of: MeterOf, target: Target, size: tuple[int, int], num_classes: int) -> Iterator[CarefulGraphMeter]:
    with meter_of(target, size, num_classes) as meter:
        yield CarefulGraphMeter(meter=meter)


def _deployed(search: Search, trial: Trial) -> Deployed | None:
    """What a trial ships as in lower precision; None in full precision, and where it cannot be expressed.

    Raises: UnmeasuredError when its runtime refuses that, or crashes at it.
    """
    from nas.quantization.shipping import deployed_on
    from nas.search.tasks import deployed_on_timing_node

    target = search.ships_on(trial)
    if target.precision == "fp32":
        return None
    deploy = deployed_on_timing_node if search.workers.timing_node else deployed_on
    try:
        return deploy(target, _network(search, trial), search.dataset)
    except ExportError:  # told again when it is written
        return None


def _warning(search: Search, trial: Trial) -> str:
    """What to know of a trial that ships in INT8; empty where there is nothing."""
    from nas.quantization.shipping import warning_of

    return warning_of(search.ships_on(trial), _network(search, trial))


def _network(search: Search, trial: Trial) -> Network:
    from nas.training.weights import load_into, load_weights

    network: Network = trial.architecture.build(search.num_classes)
    load_into(network, load_weights(search.run.weights_path(trial)), f"weights of {trial.name}")
    return network


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shipping:
    """As what a trial is certified, and how."""

    certification: Certification
    deployed: Deployed | None
    """None in full precision, and where lower precision is not scored as it ships."""
    whole: Latency | None = None
    """What it took in full precision just before, where it ships in a lower one and that could be timed."""
    compared: tuple[ComparedForm, ...] = ()
    """What full precision was chosen among."""

    def in_full_precision(self, given_up: GivenUpError) -> _Shipping:
        """The same trial, once its lower precision is given up."""
        from nas.quantization.verdicts import times

        assert self.deployed is not None, "else it ships in no lower precision"
        assert self.whole is not None, "else nothing is given up"
        whole = replace(self.certification.target, precision="fp32")
        lower = ComparedForm.of(
            self.deployed.form,
            given_up.latency,
            times(given_up.latency, self.whole, str(whole)),
            miou=self.deployed.scores.miou,
            same_labels=self.deployed.same_labels,
        )
        return _Shipping(
            certification=replace(self.certification, target=whole, require=None),
            deployed=None,
            compared=(ComparedForm.of(str(whole), self.whole, "kept"), lower),
        )


def _shipping(search: Search, trial: Trial, deployed: Deployed | None, certification: Certification) -> _Shipping:
    """As what a trial is certified; in lower precision compared with itself in full precision, which is timed for that,
    and required to be surely faster where that keeps the budget.
    """
    from nas.quantization.verdicts import GivenUpError, times, unbeaten

    if deployed is None or trial.latency is None:
        return _Shipping(certification=certification, deployed=deployed)
    whole = replace(certification.target, precision="fp32")
    weights = search.run.weights_path(trial)
    try:
        with certification.meter_of(whole, search.dataset.size, search.num_classes) as meter:
            latency = meter.measure(trial.architecture, weights=weights, within=certification.within)
    except (TargetError, UnmeasuredError) as error:
        search.console.step(f"        not compared with {whole}: {error}")
        return _Shipping(certification=certification, deployed=deployed)
    found = (
        ComparedForm.of(str(whole), latency, times(latency, trial.latency, deployed.form)),
        ComparedForm.of(
            deployed.form, trial.latency, "kept", miou=deployed.scores.miou, same_labels=deployed.same_labels
        ),
    )
    budget = certification.budget
    assert budget is not None, "a search has one"

    def require(lower: Latency) -> None:
        counts = unbeaten((latency, lower), lambda each: each, budget.statistic)
        if counts is latency and budget.verdict(latency) == "PASS":  # else what lower precision may keep is given away
            raise GivenUpError(lower, times(lower, latency, str(whole)))

    return _Shipping(
        certification=replace(certification, require=require if "fp32" in search.study.precisions else None),
        deployed=replace(deployed, compared=found),
        whole=latency,
    )


def _write(search: Search, trial: Trial, shipping: _Shipping, folder: Path) -> Certificate:
    from nas.runs.labelling import Labelling
    from nas.training.weights import load_weights

    finished = Finished(
        architecture=trial.architecture,
        weights=load_weights(search.run.weights_path(trial)),
        labelling=Labelling.of(search.dataset),
        dataset=search.dataset,
        deployed=shipping.deployed,
        compared=shipping.compared,
    )
    return write_winner(folder, finished, shipping.certification)


def _certification(search: Search, trial: Trial, meter_of: MeterOf, budget: Budget) -> Certification:
    from nas.latency.machine.gpu import training_device
    from nas.search.tasks import score_on

    workers = search.workers
    return Certification(
        target=search.ships_on(trial),
        budget=budget,
        device=workers.device if workers.joined else training_device(),  # the target may be another machine's
        score=score_on(workers) if workers.joined else None,
        within=min(search.study.latency_within, WITHIN),
        meter_of=lambda target, size, num_classes: _careful(meter_of, target, size, num_classes),
    )
