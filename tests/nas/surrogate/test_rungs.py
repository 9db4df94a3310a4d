"""The choice of rungs and the number of trainings on each, on invented scores."""

from __future__ import annotations

import random

import optuna
import pytest
from optuna.trial import TrialState

from nas.surrogate.candidates import ANSWERS, FIDELITY, STEPS
from nas.surrogate.rungs import ladder
from nas.surrogate.told import Told, known_of

RUNGS = (0.062, 0.25, 1.0)
NETWORKS = 60


def told_of(noise: float, wholes: int = NETWORKS) -> list[Told]:
    """Networks with noisy scores at all rungs, noisier at lower ones; only the best of a rung are at the last one."""
    rng = random.Random(0)
    true = [rng.random() for _ in range(NETWORKS)]
    low, middle = ([score + times * noise * rng.gauss(0, 1) for score in true] for times in (2, 1))
    best = sorted(range(NETWORKS), key=lambda place: -middle[place])[:wholes]
    found = []
    for share, scores, places in zip(RUNGS, (low, middle, true), (range(NETWORKS), range(NETWORKS), best), strict=True):
        found += [Told(point={"x": place}, score=scores[place], fidelity=share) for place in places]
    return found


def test_all_rungs_but_one_that_costs_half_are_used_at_the_beginning() -> None:
    assert ladder((), RUNGS).rungs == RUNGS
    assert ladder((), (0.02, 1.0)).rungs == (0.02, 1.0)
    assert ladder((), (0.25, 1.0)).rungs == (0.25, 1.0)
    assert ladder((), (0.5, 1.0)).rungs == (1.0,)


def test_an_expensive_rung_is_left_out_before_a_cheap_one_that_ranks_alike() -> None:
    def used(cost: float, pairs: int) -> bool:
        rng = random.Random(2)
        told = [Told(point={"x": place}, score=rng.random(), fidelity=cost) for place in range(pairs)]
        told += [Told(point={"x": place}, score=rng.random()) for place in range(pairs)]
        return len(ladder(told, (cost, 1.0)).rungs) > 1

    assert [used(0.25, 3), used(0.25, 12), used(0.06, 12), used(0.06, 60)] == [True, False, True, False]


def test_candidates_are_trained_whole_if_no_rung_predicts_their_scores() -> None:
    assert ladder(told_of(50.0), RUNGS).rungs == (1.0,)


def test_a_single_rung_without_predictive_scores_is_left_out() -> None:
    rng = random.Random(1)
    lowest = [
        Told(point=each.point, score=rng.random(), fidelity=each.fidelity) if each.fidelity == RUNGS[0] else each
        for each in told_of(0.02)
    ]
    steps = ladder(lowest, RUNGS)
    assert steps.rungs == RUNGS[1:]
    assert steps.after(0.0) == steps.after(RUNGS[0]) == RUNGS[1]
    assert steps.after(RUNGS[1]) == 1


def test_a_rung_is_used_although_only_its_best_trainings_go_on() -> None:
    """The order among the best third is much less sure than among all."""
    rungs = (RUNGS[1], 1.0)

    def used(wholes: int) -> tuple[float, ...]:
        return ladder([each for each in told_of(0.1, wholes) if each.fidelity in rungs], rungs).rungs

    assert used(20) == used(NETWORKS) == rungs


def test_pairs_with_nearly_equal_scores_end_no_rung() -> None:
    """Five scores in random order lie within a twentieth of the whole range, as in a search with similar proposals."""
    rungs = (RUNGS[1], 1.0)
    others = [Told(point={"x": 10 + place}, score=0.15 + 0.01 * place, fidelity=RUNGS[1]) for place in range(20)]
    short, whole = (0.340, 0.342, 0.344, 0.346, 0.348), (0.51, 0.49, 0.52, 0.48, 0.50)
    alike = [
        Told(point={"x": place}, score=score, fidelity=share)
        for scores, share in ((short, RUNGS[1]), (whole, 1.0))
        for place, score in enumerate(scores)
    ]
    assert ladder([*others, *alike], rungs).rungs == rungs


def test_a_rung_of_random_scores_is_left_out_although_only_its_best_went_on() -> None:
    rng = random.Random(3)
    scores = [rng.random() for _ in range(NETWORKS)]
    told = [Told(point={"x": place}, score=score, fidelity=RUNGS[1]) for place, score in enumerate(scores)]
    best = sorted(range(NETWORKS), key=lambda place: -scores[place])[: NETWORKS // 2]
    told += [Told(point={"x": place}, score=rng.random()) for place in best]
    assert ladder(told, (RUNGS[1], 1.0)).rungs == (1.0,)


@pytest.mark.parametrize(
    "scores",
    [
        (0.5, 0.5, 0.5, 0.1),
        (0.5, 0.5, 0.5, 0.5, 0.1, 0.2),
        (0.5, 0.1, 0.1, 0.1),
        (0.5, 0.5, 0.1, 0.1),
        (0.5, 0.5, 0.5, 0.5),
        (0.0, 0.0),
    ],
    ids=["most at the top", "more at the top", "most at the bottom", "halves", "all equal", "all nothing"],
)
@pytest.mark.parametrize("more", [(), (0.5, 0.5, 0.5), (0.1, 0.3)], ids=["", "tied ones paused", "others paused"])
def test_tied_scores_end_no_rung(scores: tuple[float, ...], more: tuple[float, ...]) -> None:
    """Scores are tied at the lower rungs, at the last one, or at all of them."""
    untied = [0.1 * place for place in range(len(scores))]
    for low, whole in ((scores, untied), (untied, scores), (scores, scores)):
        told = [
            Told(point={"x": place}, score=score, fidelity=share)
            for share in RUNGS
            for place, score in enumerate(whole if share == 1 else low)
        ]
        told += [
            Told(point={"x": 100 + place}, score=score, fidelity=share)
            for share in RUNGS[:-1]
            for place, score in enumerate(more)
        ]
        steps = ladder(told, RUNGS)
        assert steps.rungs[-1] == 1


def test_a_training_goes_on_at_once_and_then_whenever_enough_was_spent_below() -> None:
    steps = ladder((), (0.25, 1.0))
    assert steps.due(()) == ()
    assert steps.due((0.25,) * 4) == (1,)
    assert steps.due((0.25, 0.25, 1, 0.25, 0.25)) == ()
    assert steps.due((0.25, 0.25, 1, 0.25, 0.25, 0.25)) == (1,)


def test_each_of_three_rungs_gets_its_share() -> None:
    steps = ladder((), RUNGS)
    first = RUNGS[:1] * 3
    assert steps.due(first) == (1, 0.25), "one can only go on to the lower of these"
    assert steps.due((*first, 0.25)) == (1,)
    assert steps.due((*first, 0.25, 1, *first)) == (0.25,)
    assert steps.due((*first, 0.25, 1, *first, 0.25, *first)) == (1, 0.25)


def test_a_failed_short_training_costs_its_whole_rung() -> None:
    """Otherwise diverging trainings would keep all others from going on."""
    study = optuna.create_study()
    for state in (TrialState.COMPLETE, TrialState.FAIL):
        trial = study.ask()
        trial.set_user_attr(ANSWERS, {"x": trial.number})
        trial.set_user_attr(FIDELITY, RUNGS[0])
        if state == TrialState.COMPLETE:
            trial.report(0.5, round(RUNGS[0] * STEPS))
        study.tell(trial, 0.5 if state == TrialState.COMPLETE else None, state=state)
    assert [each.fidelity for each in known_of(study).begun] == pytest.approx([RUNGS[0], RUNGS[0]], rel=0.01)
