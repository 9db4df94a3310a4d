"""Epochs left after the candidates of a run: for finalists, pruned networks, company, and finish recipes to try."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from nas.latency.budget import Budgets
from nas.runs.finish_recipe import FinishRecipe, finish_has_begun, read_finish_recipe, tried_path
from nas.runs.folder import RunFolder
from nas.runs.trial import Progress, Trial, read_progress
from nas.study import Study


@dataclass(frozen=True, kw_only=True)
class ToFinish:
    """Epochs left after the candidates."""

    finalists: tuple[int, ...]
    """Epochs of each finalist of each budget."""
    pruned: tuple[int, ...]
    """Epochs of each network that may be pruned into a budget."""
    company: Mapping[str, int]
    """Epochs of both trainings of each published network at its own width, by name."""
    tries: tuple[int, ...]
    """Epochs of each recipe to be tried."""

    @property
    def epochs(self) -> int:
        """All epochs left."""
        return sum(self.finalists) + sum(self.pruned) + sum(self.company.values()) + sum(self.tries)


def to_finish(run: RunFolder, study: Study, budgets: Budgets) -> ToFinish:
    """The epochs that a run has left for these budgets of its study. The finalists are not known yet: networks inside a
    budget whose finish has begun are counted as finalists.

    Raises: UserError when a file of the run is damaged.
    """
    plan, found, trials = study.search, read_finish_recipe(run), run.trials()
    if found is not None and not finish_has_begun(run):
        found = replace(found, epochs=0)  # the time left decides anew how long the finish is
    whole = plan.longest_finish if found is None or found.chosen is None else plan.epochs_of(found.recipe)
    company = {trial.name: trial for trial in run.company()}

    def of_company(name: str) -> int:
        trial = company.get(name)
        if trial is None:
            return study.recipe.epochs + whole
        if trial.failed:
            return 0
        return _left(run.progress(trial, "search"), study.recipe.epochs) + _left(run.progress(trial, "finish"), whole)

    def of_budgets(count: int, candidates: Iterable[Trial]) -> tuple[int, ...]:
        """Epochs of `count` networks for each budget; those that were begun are known."""
        progress = [(trial, run.progress(trial, "finish")) for trial in candidates if not trial.failed]
        begun = [(trial, _left(each, whole)) for trial, each in progress if each.history]
        left: list[int] = []
        for budget in budgets:
            known = sorted(epochs for trial, epochs in begun if trial.inside(budget))[:count]
            left += [*known, *[whole] * (count - len(known))]
        return tuple(left)

    return ToFinish(
        finalists=of_budgets(plan.finalists, (trial for trial in trials if trial.origin != "pruned")),
        pruned=of_budgets(min(plan.pruned, len(plan.company)), (trial for trial in trials if trial.origin == "pruned")),
        company={name: of_company(name) for name in plan.company},
        tries=plan.tried_epochs if found is None else _tries_left(run, found, trials),
    )


def _tries_left(run: RunFolder, found: FinishRecipe, trials: Sequence[Trial]) -> tuple[int, ...]:
    if found.chosen is not None:
        return ()
    network = next((each for each in trials if each.architecture.key == found.network), None)
    return tuple(
        each.epochs if network is None else _left(read_progress(tried_path(run, network, place)), each.epochs)
        for place, each in enumerate(found.tried)
        if not each.over
    )


def _left(progress: Progress, epochs: int) -> int:
    """Epochs left of a training of `epochs`."""
    return 0 if progress.done else max(0, epochs - len(progress.history))
