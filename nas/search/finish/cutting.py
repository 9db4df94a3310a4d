"""Prunes trained networks that are over the budget into it, to compete with those found inside it."""

from __future__ import annotations

from dataclasses import replace

from nas.errors import UnmeasuredError
from nas.host.room import is_shortage, line_of_shortage
from nas.latency.budget import Budget
from nas.latency.estimates.table import LatencyTable
from nas.latency.machine.gpu import training_device
from nas.latency.meter import Measures
from nas.latency.record import Latency
from nas.prune.judge import Judge
from nas.prune.plan import PruningPlan
from nas.prune.pruner import Pruner
from nas.prune.tuning import FineTuning
from nas.runs.folder import TRIALS, RunFolder
from nas.runs.labelling import WEIGHTS
from nas.runs.trial import Trial
from nas.runs.trial_network import trained_network
from nas.search.cluster.tasks import recover_on, weigh_on
from nas.search.search import Candidate, Search
from nas.training.weights import load_weights, save_weights
from space.architecture import Architecture
from space.errors import BudgetError, UserError


def pruner_of(search: Search, meter: Measures, table: LatencyTable | None, budget: Budget) -> Pruner:
    """The pruner for a budget, on the device that `meter` times on and with its latency `table`."""
    study, workers = search.study, search.workers
    judge = Judge(meter, study.data.size, search.num_classes, table=table, within=study.latency_within)
    here = Pruner(
        judge=judge,
        budget=budget,
        plan=PruningPlan(epochs=0),
        tuning=FineTuning(
            dataset=search.dataset, recipe=study.recipe, device="cpu" if workers.joined else training_device()
        ),
        said=search.console.step,
        progress=search.console.progress,
    )
    return replace(here, weigh=weigh_on(workers), recover=recover_on(workers)) if workers.joined else here


def prune_over_budget(search: Search, pruner: Pruner) -> list[Trial]:
    """Prune the `study.search.pruned` most accurate published networks over the pruner's budget into it. Returns trials
    with weights, from which their fine-tuning begins.

    A network that was pruned before is not pruned again, unless its weights are damaged; it is timed again where it may
    be over the budget only because the machine was busy. A network is left out if no cut brings it inside the budget,
    if the target cannot time it, or if memory does not suffice to weigh its channels.
    """
    run, budget = search.run, pruner.budget
    trained = [each for each in run.company() if not each.failed and run.progress(each, "search").done]
    over = [each for each in trained if not each.inside(budget)]
    over.sort(key=lambda each: run.best_miou(each) or 0.0, reverse=True)
    found = []
    for parent in over[: search.study.search.pruned]:
        trial = _known(search, parent, budget)
        trial = _cut(search, pruner, parent) if trial is None else _timed_again(search, pruner, trial)
        if trial is not None and trial.inside(budget):
            found.append(trial)
    return found


def parent_of(run: RunFolder, trial: Trial) -> Trial:
    """The published network that a pruned trial was cut from."""
    return next(each for each in run.company() if each.name == trial.parent)


def _known(search: Search, parent: Trial, budget: Budget) -> Trial | None:
    run = search.run
    cuts = [each for each in run.trials() if each.origin == "pruned" and each.parent == parent.name]
    cut = next((each for each in cuts if each.budget_milliseconds == budget.milliseconds), None)
    if cut is None or cut.failed or run.is_done(cut, "finish"):
        return cut
    try:
        load_weights(run.phase_path(cut, "search") / WEIGHTS)
    except UserError:
        return None
    return cut


def _timed_again(search: Search, pruner: Pruner, cut: Trial) -> Trial:
    """A known cut, timed once more if it may be over the budget only because the machine was busy."""
    budget = pruner.budget
    if cut.failed or cut.latency is None or not budget.doubts(cut.latency):
        return cut
    try:
        with search.console.progress.over(f"{cut.name} timed again", 0):
            again = pruner.judge.latency(cut.architecture, anew=True)
    except UnmeasuredError:
        return cut
    latency = budget.likelier(cut.latency, again)
    cut = replace(cut, latency=latency, feasible=budget.admits(latency))
    search.run.write_trial(cut)
    search.console.timed_again(cut)
    return cut


def _cut(search: Search, pruner: Pruner, parent: Trial) -> Trial | None:
    run, console = search.run, search.console
    console.step(f"prune   {parent.name}{f' to {pruner.budget}' if search.budgets.several else ''}")
    try:
        pruned = pruner.prune(trained_network(run, parent, search.num_classes))
    except BudgetError as error:
        console.step(f"        left out: {error}")
        return None
    except UnmeasuredError as error:
        console.step(f"        left out: {error}")
        _record(search, pruner.budget, parent, parent.architecture, parent.latency, f"cannot be timed: {error}")
        return None
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        words = line_of_shortage(str(error)) or type(error).__name__
        console.step(f"        left out: there is not enough memory to prune it: {words}")
        return None
    architecture = pruned.network.architecture
    # The weights are written before the trial, so that every recorded trial can be trained.
    save_weights(
        run.root / TRIALS / architecture.key / "search" / WEIGHTS,
        pruned.network.state_dict(),
        {"architecture": architecture.key},
    )
    trial = _record(search, pruner.budget, parent, architecture, pruned.after)
    console.proposed(trial)
    return trial


def _record(
    search: Search,
    budget: Budget,
    parent: Trial,
    architecture: Architecture,
    latency: Latency | None,
    failed: str = "",
) -> Trial:
    """Record what a parent was cut to for a budget, or that it could not be cut."""
    name = f"{parent.name}, pruned to {budget}" if search.budgets.several else f"{parent.name}, pruned"
    candidate = Candidate(name=name, origin="pruned", architecture=architecture, parent=parent.name)
    known = next((each for each in search.run.trials() if each.architecture.key == architecture.key), None)
    number = search.run.next_number() if known is None else known.number
    trial = search.trial(number, candidate, latency, failed, budget)
    search.run.write_trial(trial)
    return trial
