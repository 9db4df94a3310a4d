"""The surrogate as an Optuna sampler: it reads the study's trials, and answers all questions of a new one at once.

`nas.surrogate.candidates` says what its trials are expected to tell.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from nas.surrogate.candidates import ANSWERS, COST, ELSEWHERE, FORGOTTEN, STEPS, WITHDRAWN, Candidates
from nas.surrogate.choice import Told, choose
from nas.surrogate.encoding import Point, key

BEST = 8  # whose neighbourhood is looked at


class SurrogateSampler(optuna.samplers.BaseSampler):
    """The best of many candidates; at random until it was told of `startup`."""

    def __init__(self, *, seed: int, startup: int, candidates: Candidates) -> None:
        self._seed = seed
        self._startup = max(1, startup)
        self._candidates = candidates
        self._random = optuna.samplers.RandomSampler(seed=seed)
        self._chosen: dict[str, Any] = {}

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Choose a point: its parameters are all that the trial will be asked for."""
        parameters = {}
        point = self._choice(study, trial)
        if point is not None:
            parameters = dict(self._candidates.parameters(point))
        self._chosen = {name: value for name, (_, value) in parameters.items()}
        return {name: distribution for name, (distribution, _) in parameters.items()}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of the point that was chosen."""
        return self._chosen

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """At random, before there is a choice."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)

    def _choice(self, study: optuna.Study, trial: FrozenTrial) -> Point | None:
        left_out = {trial.number, *study.user_attrs.get(FORGOTTEN, ())}
        others = [
            each
            for each in study.get_trials(deepcopy=False)
            if each.number not in left_out and each.user_attrs.get(ANSWERS)
        ]
        told = [_told(each) for each in others if each.state.is_finished() and not each.user_attrs.get(WITHDRAWN)]
        if len(told) < self._startup:
            return None
        running = [_point(each) for each in others if each.state == TrialState.RUNNING]
        short = [each.point for each in told if each.score is not None and each.fidelity < 1 and not each.elsewhere]
        done = [_point(each) for each in others if each.state.is_finished() and not each.user_attrs.get(ELSEWHERE)]
        known = {key(point) for point in (*done, *running)}
        rng = random.Random(f"{self._seed}/{trial.number}")
        found = {key(point): point for point in self._candidates.around(_best(told), rng)}
        candidates = [point for key, point in found.items() if key not in known]
        if self._candidates.resumable:
            over = {key(each.point) for each in told if each.fidelity >= 1} | {key(point) for point in running}
            paused = {key(point): point for point in short}
            candidates += [point for key, point in paused.items() if key not in over]
        return candidates[choose(candidates, told, running)] if candidates else None


def _told(trial: FrozenTrial) -> Told:
    scores = {step / STEPS: score for step, score in sorted(trial.intermediate_values.items())}
    fidelity = max(scores, default=1.0)
    return Told(
        point=_point(trial),
        score=scores.pop(fidelity, None),
        fidelity=fidelity,
        earlier=scores,
        cost=trial.user_attrs[COST],
        violations=trial.constraints,
        failed=trial.state == TrialState.FAIL,
        elsewhere=bool(trial.user_attrs.get(ELSEWHERE)),
    )


def _point(trial: FrozenTrial) -> Point:
    point: Point = trial.user_attrs[ANSWERS]
    return point


def _best(told: Sequence[Told]) -> list[Point]:
    """Those that scored best inside their budgets: whole trainings, then the longest of the others."""
    scored = [
        (each.fidelity, each.score, each.point)
        for each in told
        if each.score is not None and all(violation <= 0 for violation in each.violations.values())
    ]
    ranked = sorted(scored, key=lambda each: (-each[0], -each[1]))
    return [point for _, _, point in ranked[:BEST]]
