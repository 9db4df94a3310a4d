"""The surrogate as an Optuna sampler: it reads the study's trials and sets all parameters of a new one at once.

`nas.surrogate.candidates` describes the attributes that it expects of the trials.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from nas.surrogate.candidates import BUDGET, Candidates, rungs_of
from nas.surrogate.choice import choose
from nas.surrogate.encoding import Point, key
from nas.surrogate.rungs import ladder
from nas.surrogate.told import Known, Told, best_of, known_of

ENQUEUED = "fixed_params"  # Optuna's system attribute with the parameters of an enqueued trial
BEST = 8  # candidates whose neighbours are considered
# One of so many new candidates is of a kind that was not tried before. Without these a search on CamVid tried hardly
# anything but variants of its first good network, though another kind was better (`studies/camvid/searches`).
ONE_IN = 4


class SurrogateSampler(optuna.samplers.BaseSampler):
    """Proposes the best of many candidates; draws at random until it knows `startup` (trained or in training)."""

    def __init__(self, *, seed: int, startup: int, candidates: Candidates) -> None:
        self._seed = seed
        self._startup = max(1, startup)
        self._candidates = candidates
        self._chosen: dict[str, Any] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Choose a point, whose parameters are all that the trial will be asked for. Enqueued trials have theirs."""
        parameters = {}
        point = None if trial.system_attrs.get(ENQUEUED) else self._choice(study, trial)
        if point is not None:
            parameters = dict(self._candidates.parameters(point))
        self._chosen = {name: value for name, (_, value) in parameters.items()}
        return {name: distribution for name, (distribution, _) in parameters.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The parameter values of the chosen point."""
        return self._chosen

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value, used until the sampler can choose."""
        seed = random.Random(f"{self._seed}/{trial.number}/{param_name}").randrange(2**32)
        return optuna.samplers.RandomSampler(seed=seed).sample_independent(study, trial, param_name, param_distribution)

    def _choice(self, study: optuna.Study, trial: FrozenTrial) -> Point | None:
        known = known_of(study, but=trial.number)
        told = known.told
        if len(told) + len(known.running) < self._startup:
            return None
        whole = [each.point for each in told if each.fidelity >= 1 and not each.elsewhere]
        over = {key(each) for each in (*whole, *known.withdrawn, *(one.point for one in known.running))}
        budget = self._candidates.budget
        here = [each for each in told if each.point.get(BUDGET) == budget]
        paused = {key(each.point): each for each in here if each.paused and key(each.point) not in over}
        steps = ladder(told, rungs_of(self._candidates))
        for due in steps.due([each.fidelity for each in known.begun if each.point.get(BUDGET) == budget]):
            candidates = [each.point for each in paused.values() if steps.after(each.fidelity) == due]
            if candidates:
                return candidates[choose(candidates, told, known.running, self._candidates.facts)]
        rng = random.Random(f"{self._seed}/{trial.number}")
        nearest = list({key(point): point for point in self._best(told)}.values())[:BEST]
        found = {key(point): point for point in self._candidates.around(nearest, rng)}
        seen = over | {key(each.point) for each in told if not each.elsewhere}
        candidates = [point for place, point in found.items() if place not in seen]
        begun = sum(dict(place).get(BUDGET) == budget for place in seen)
        others = self._of_other_kinds(candidates, known) if begun % ONE_IN == 0 else []
        candidates = others or [*candidates, *(each.point for each in paused.values())]
        return candidates[choose(candidates, told, known.running, self._candidates.facts)] if candidates else None

    def _of_other_kinds(self, candidates: Sequence[Point], known: Known) -> list[Point]:
        """The candidates of kinds that were not tried so far."""
        points = [*(each.point for each in known.told), *(each.point for each in known.running)]
        tried = {self._candidates.kind(point) for point in points}
        return [point for point in candidates if self._candidates.kind(point) not in tried]

    def _best(self, told: Sequence[Told]) -> list[Point]:
        """The best points so far for the current budget, then those of other budgets, changed to this one."""
        best, budget = best_of(told), self._candidates.budget
        if budget is None:
            return [each.point for each in best]
        best.sort(key=lambda each: (each.other_data, each.point.get(BUDGET) != budget))
        return [{**each.point, BUDGET: budget} for each in best]
