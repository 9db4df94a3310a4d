"""What a study of trainings tells: how each ended, and which are under way."""

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
    """How one training of a candidate ended, or that it cannot be trained."""

    point: Point
    score: float | None
    """The higher the better; None where there is none."""
    fidelity: float = 1.0
    """The share of a whole training that is behind it, above 0."""
    violations: Mapping[str, float] = field(default_factory=dict)
    """By which share each budget was exceeded, by its name; 0 or less: kept."""
    failed: bool = False
    """Whether it broke for reasons of its own."""
    elsewhere: bool = False
    """Whether it was trained by another search, and cannot be trained on."""
    other_data: bool = False
    """Whether that was on other data: then its score compares with those of its kind only."""

    @property
    def over(self) -> bool:
        """Whether it exceeds a budget."""
        return any(violation > 0 for violation in self.violations.values())

    @property
    def paused(self) -> bool:
        """Whether it can be trained on."""
        return self.score is not None and self.fidelity < 1 and not (self.over or self.elsewhere)


@dataclass(frozen=True, kw_only=True)
class Running:
    """A candidate that is being trained."""

    point: Point
    fidelity: float = 1.0
    """The share of a whole training that it will have behind it."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """All that a study says, in the order of its trials."""

    told: tuple[Told, ...] = ()
    running: tuple[Running, ...] = ()
    withdrawn: tuple[Point, ...] = ()
    """What came to nothing new: of no interest, and of no consequence."""
    begun: tuple[float, ...] = ()
    """The share of a whole training that each training had behind it or will have, in the order in which they began."""


def known_of(study: optuna.Study, *, but: int | None = None) -> Known:
    """What a study says, the trial of the number `but` left out, and all that is forgotten."""
    from optuna.trial import TrialState

    left_out = {but, *study.user_attrs.get(FORGOTTEN, ())}
    others = [
        each
        for each in study.get_trials(deepcopy=False)
        if each.number not in left_out and each.user_attrs.get(ANSWERS)
    ]
    finished = [each for each in others if each.state.is_finished()]
    trained = [each for each in others if not (each.user_attrs.get(WITHDRAWN) or each.user_attrs.get(ELSEWHERE))]
    begun = [_share(each) for each in trained]
    return Known(
        told=tuple(_levelled([_told(each) for each in finished if not each.user_attrs.get(WITHDRAWN)])),
        running=tuple(
            Running(point=each.user_attrs[ANSWERS], fidelity=each.user_attrs[FIDELITY])
            for each in others
            if each.state == TrialState.RUNNING
        ),
        withdrawn=tuple(each.user_attrs[ANSWERS] for each in finished if each.user_attrs.get(WITHDRAWN)),
        begun=tuple(share for share in begun if share is not None),
    )


def _share(trial: FrozenTrial) -> float | None:
    """What a training had behind it or will have; None where there was none."""
    from optuna.trial import TrialState

    told = _told(trial)
    if trial.state == TrialState.RUNNING or (told.failed and told.score is None):
        return float(trial.user_attrs[FIDELITY])  # that it was begun for
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
    """Scores of several budgets as what they are above the median of their own, so that they compare: what is good for
    a small budget scores less than anything for a large one.
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
    """Those that scored inside their budgets: whole trainings, then the longest of the others, the best first."""
    scored = [(each.fidelity, each.score, each) for each in told if each.score is not None and not each.over]
    return [each for _, _, each in sorted(scored, key=lambda each: (-each[0], -each[1]))]
