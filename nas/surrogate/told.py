"""The results in a study of trainings: how each ended, and which are under way."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nas.surrogate.candidates import ANSWERS, BUDGET, ELSEWHERE, FIDELITY, FORGOTTEN, OTHER_DATA, STEPS, WITHDRAWN
from nas.surrogate.encoding import Point

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial


@dataclass(frozen=True, kw_only=True)
class Told:
    """The result of a candidate's training, or of a candidate that cannot be trained."""

    point: Point
    score: float | None
    """Score, higher is better; None where there is none."""
    fidelity: float = 1.0
    """Share of a whole training that it was trained for, above 0."""
    violations: Mapping[str, float] = field(default_factory=dict)
    """Share by which each budget, by its name, was exceeded; 0 or less where it was kept."""
    failed: bool = False
    """Whether its training failed for reasons of its own."""
    elsewhere: bool = False
    """Whether it was trained by another search, and cannot be trained further here."""
    other_data: bool = False
    """Whether that was on other data: its score is then comparable only with others of this kind."""

    @property
    def over(self) -> bool:
        """Whether it exceeds a budget."""
        return any(violation > 0 for violation in self.violations.values())

    @property
    def paused(self) -> bool:
        """Whether it can be trained further."""
        return self.score is not None and self.fidelity < 1 and not (self.over or self.elsewhere)


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A training that has begun."""

    point: Point
    fidelity: float = 1.0
    """Share of a whole training that its candidate reached or will reach."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """All results of a study, in the order of its trials."""

    told: tuple[Told, ...] = ()
    running: tuple[Begun, ...] = ()
    """The trainings under way."""
    withdrawn: tuple[Point, ...] = ()
    """Points that led to nothing new and are ignored."""
    begun: tuple[Begun, ...] = ()
    """All trainings, in the order in which they began."""


def known_of(study: optuna.Study, *, but: int | None = None) -> Known:
    """The results of a study, without the trial numbered `but` and forgotten ones."""
    from optuna.trial import TrialState

    left_out = {but, *study.user_attrs.get(FORGOTTEN, ())}
    others = [
        each
        for each in study.get_trials(deepcopy=False)
        if each.number not in left_out and each.user_attrs.get(ANSWERS)
    ]
    finished = [each for each in others if each.state.is_finished()]
    trained = [each for each in others if not (each.user_attrs.get(WITHDRAWN) or each.user_attrs.get(ELSEWHERE))]
    shares = [(each.user_attrs[ANSWERS], _share(each)) for each in trained]
    return Known(
        told=tuple(_levelled([_told(each) for each in finished if not each.user_attrs.get(WITHDRAWN)])),
        running=tuple(
            Begun(point=each.user_attrs[ANSWERS], fidelity=each.user_attrs[FIDELITY])
            for each in others
            if each.state == TrialState.RUNNING
        ),
        withdrawn=tuple(each.user_attrs[ANSWERS] for each in finished if each.user_attrs.get(WITHDRAWN)),
        begun=tuple(Begun(point=point, fidelity=share) for point, share in shares if share is not None),
    )


def _share(trial: FrozenTrial) -> float | None:
    """The share of a whole training that a trial reached or will reach; None where it was not trained."""
    from optuna.trial import TrialState

    told = _told(trial)
    if trial.state == TrialState.RUNNING or (told.failed and told.score is None):
        return float(trial.user_attrs[FIDELITY])  # the fidelity that it was begun for
    return None if told.score is None else told.fidelity


def _told(trial: FrozenTrial) -> Told:
    from optuna.trial import TrialState

    step, score = max(trial.intermediate_values.items(), default=(STEPS, None))
    return Told(
        point=trial.user_attrs[ANSWERS],
        score=score,
        fidelity=step / STEPS,
        violations=trial.constraints,
        failed=trial.state == TrialState.FAIL,
        elsewhere=bool(trial.user_attrs.get(ELSEWHERE)),
        other_data=bool(trial.user_attrs.get(OTHER_DATA)),
    )


def _levelled(told: Sequence[Told]) -> Sequence[Told]:
    """With several budgets, scores relative to the median of their budget, so that they are comparable: a good network
    for a small budget scores lower than any for a large one.
    """
    scores: dict[tuple[object, float], list[float]] = defaultdict(list)
    for each in told:
        if each.score is not None and not each.over:
            scores[each.point.get(BUDGET), each.fidelity].append(each.score)
    if {budget for budget, _ in scores} <= {None}:
        return told
    medians = {place: statistics.median(found) for place, found in scores.items()}
    return [
        each
        if each.score is None
        else replace(each, score=each.score - medians.get((each.point.get(BUDGET), each.fidelity), each.score))
        for each in told
    ]


def best_of(told: Sequence[Told]) -> list[Told]:
    """The results inside their budgets, by descending fidelity and then score."""
    scored = [(each.fidelity, each.score, each) for each in told if each.score is not None and not each.over]
    return [each for _, _, each in sorted(scored, key=lambda each: (-each[0], -each[1]))]
