"""Networks over the budget that were trained all the same are pruned into it, to compete with those found inside it."""

from __future__ import annotations

from nas.latency.record import Budget
from nas.prune.pruner import Pruner
from nas.runs.folder import RunFolder, Trial
from nas.runs.trained import WEIGHTS
from nas.search.console import Console
from nas.search.proposals import measured_trial
from nas.study import Study
from nas.training.weights import load_weights, save_weights
from space.errors import BudgetError
from space.network import Network


def prune_over_budget(
    run: RunFolder, study: Study, budget: Budget, pruner: Pruner, num_classes: int, console: Console
) -> list[Trial]:
    """The best `study.search.pruned` of the company over the budget, cut down into it: trials with weights from which
    their fine-tuning begins. What was cut already is not cut again; what no cut brings inside is left out.
    """
    over = [each for each in run.company() if not budget.admits(each.latency) and run.best_miou(each) is not None]
    over.sort(key=lambda each: run.best_miou(each) or 0.0, reverse=True)
    found = []
    for parent in over[: study.search.pruned]:
        trial = _known(run, parent, budget) or _cut(run, study, budget, pruner, num_classes, console, parent)
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


def _known(run: RunFolder, parent: Trial, budget: Budget) -> Trial | None:
    cuts = [each for each in run.trials() if each.origin == "pruned" and each.parent == parent.name]
    return next((each for each in cuts if each.budget_milliseconds == budget.milliseconds), None)


def _cut(
    run: RunFolder,
    study: Study,
    budget: Budget,
    pruner: Pruner,
    num_classes: int,
    console: Console,
    parent: Trial,
) -> Trial | None:
    console.step(f"prune   {parent.name}")
    number = max((each.number for each in run.trials()), default=0) + 1
    try:
        pruned = pruner.prune(_trained(run, parent, num_classes))
    except BudgetError as error:
        console.step(f"        left out: {error}")
        return None
    trial = measured_trial(
        number,
        f"{parent.name}, pruned",
        "pruned",
        pruned.network.architecture,
        pruned.after,
        budget,
        study,
        num_classes,
        parent=parent.name,
    )
    # Weights before the trial: one that is there can be trained.
    save_weights(
        run.phase_path(trial, "search") / WEIGHTS,
        pruned.network.state_dict(),
        {"architecture": trial.architecture.key},
    )
    run.write_trial(trial)
    console.proposed(trial)
    return trial
