"""Networks over the budget that were trained all the same are pruned into it, to compete with those found inside it."""

from __future__ import annotations

from nas.latency.estimates.table import LatencyTable
from nas.latency.machine.gpu import training_device
from nas.latency.meter import Measures
from nas.prune.judge import Judge
from nas.prune.plan import PruningPlan
from nas.prune.pruner import Pruner
from nas.prune.tuning import FineTuning
from nas.runs.folder import RunFolder
from nas.runs.trained import WEIGHTS
from nas.runs.trial import Trial
from nas.search.search import Candidate, Search
from nas.training.weights import load_weights, save_weights
from space.errors import BudgetError
from space.network import Network


def pruner_of(search: Search, meter: Measures, table: LatencyTable | None) -> Pruner:
    """What prunes for a search, on the device that `meter` times on and whose latency table is `table`."""
    study = search.study  # weighed by this process: the workers' device may be another machine's
    judge = Judge(meter, study.data.size, search.num_classes, table=table, within=study.latency_within)
    return Pruner(
        judge=judge,
        budget=search.budget,
        plan=PruningPlan(epochs=0),
        tuning=FineTuning(dataset=search.dataset, recipe=study.recipe, device=training_device()),
        said=search.console.step,
    )


def prune_over_budget(search: Search, pruner: Pruner) -> list[Trial]:
    """The most accurate published networks over the budget, `study.search.pruned` of them, cut down into it: trials
    with weights from which their fine-tuning begins. What was cut already is not cut again; what no cut brings inside
    is left out.
    """
    run, budget = search.run, search.budget
    over = [each for each in run.company() if not budget.admits(each.latency) and run.best_miou(each) is not None]
    over.sort(key=lambda each: run.best_miou(each) or 0.0, reverse=True)
    found = []
    for parent in over[: search.study.search.pruned]:
        trial = _known(search, parent) or _cut(search, pruner, parent)
        if trial is not None and budget.admits(trial.latency):
            found.append(trial)
    return found


def parent_network(run: RunFolder, trial: Trial, num_classes: int) -> Network:
    """What a pruned trial was cut from, with the weights at the end of its training."""
    return _trained(run, next(each for each in run.company() if each.name == trial.parent), num_classes)


def _trained(run: RunFolder, trial: Trial, num_classes: int) -> Network:
    network = trial.architecture.build(num_classes)
    network.load_state_dict(load_weights(run.weights_path(trial)))
    return network.eval()


def _known(search: Search, parent: Trial) -> Trial | None:
    cuts = [each for each in search.run.trials() if each.origin == "pruned" and each.parent == parent.name]
    return next((each for each in cuts if each.budget_milliseconds == search.budget.milliseconds), None)


def _cut(search: Search, pruner: Pruner, parent: Trial) -> Trial | None:
    run, console = search.run, search.console
    console.step(f"prune   {parent.name}")
    number = max((each.number for each in run.trials()), default=0) + 1
    try:
        pruned = pruner.prune(_trained(run, parent, search.num_classes))
    except BudgetError as error:
        console.step(f"        left out: {error}")
        return None
    candidate = Candidate(
        name=f"{parent.name}, pruned",
        origin="pruned",
        architecture=pruned.network.architecture,
        parent=parent.name,
    )
    trial = search.trial(number, candidate, pruned.after)
    # Weights before the trial: one that is there can be trained.
    save_weights(
        run.phase_path(trial, "search") / WEIGHTS,
        pruned.network.state_dict(),
        {"architecture": trial.architecture.key},
    )
    run.write_trial(trial)
    console.proposed(trial)
    return trial
