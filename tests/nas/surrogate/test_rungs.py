"""Which rungs are used and how many trainings of each, on invented scores."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from nas.surrogate.rungs import ladder
from nas.surrogate.told import Known, Running, Told

RUNGS = (0.062, 0.25, 1.0)
NETWORKS = 60


def told_of(noise: float, wholes: int = NETWORKS) -> list[Told]:
    """Networks with scores at all rungs, the best of the rung before at the last; the lower the rung, the noisier."""
    rng = random.Random(0)
    true = [rng.random() for _ in range(NETWORKS)]
    low, middle = ([score + times * noise * rng.gauss(0, 1) for score in true] for times in (2, 1))
    best = sorted(range(NETWORKS), key=lambda place: -middle[place])[:wholes]
    found = []
    for share, scores, places in zip(RUNGS, (low, middle, true), (range(NETWORKS), range(NETWORKS), best), strict=True):
        found += [Told(point={"x": place}, score=scores[place], fidelity=share) for place in places]
    return found


def test_before_anything_is_known_all_rungs_are_used_and_each_has_more_than_the_next() -> None:
    steps = ladder((), RUNGS)
    assert steps.rungs == RUNGS
    assert all(more > fewer for more, fewer in pairwise(steps.counts))
    assert steps.counts[-1] == 1


def test_where_rungs_agree_fewer_go_on_than_where_they_hardly_do() -> None:
    sure, unsure = ladder(told_of(0.01), RUNGS), ladder(told_of(0.3), RUNGS)
    assert sure.counts[0] > ladder((), RUNGS).counts[0] > unsure.counts[0]


def test_where_rungs_tell_nothing_candidates_are_trained_whole() -> None:
    assert ladder(told_of(50.0), RUNGS).rungs == (1.0,)


def test_a_rung_that_tells_nothing_is_left_out_alone() -> None:
    rng = random.Random(1)
    lowest = [
        Told(point=each.point, score=rng.random(), fidelity=each.fidelity) if each.fidelity == RUNGS[0] else each
        for each in told_of(0.02)
    ]
    steps = ladder(lowest, RUNGS)
    assert steps.rungs == RUNGS[1:]
    assert steps.after(0.0) == steps.after(RUNGS[0]) == RUNGS[1]
    assert steps.after(RUNGS[1]) == 1


def test_that_only_the_best_go_on_makes_a_rung_hardly_worse() -> None:
    """Among a third, the best, the order is much less sure than among all."""
    rungs = (RUNGS[1], 1.0)

    def count(wholes: int) -> float:
        return ladder([each for each in told_of(0.1, wholes) if each.fidelity in rungs], rungs).counts[0]

    assert count(20) == pytest.approx(count(NETWORKS), rel=0.15)


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
def test_tied_scores_end_no_ladder(scores: tuple[float, ...], more: tuple[float, ...]) -> None:
    """At the lower rungs, at the last one, and at all of them."""
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
        assert steps.rungs[-1] == steps.counts[-1] == 1
        assert all(1 <= count < 100 for count in steps.counts)


def test_one_goes_on_when_enough_have_paused_and_what_runs_counts() -> None:
    rungs = (0.25, 1.0)
    short = [Told(point={"x": place}, score=0.1 * place, fidelity=0.25) for place in range(4)]
    steps = ladder(short, rungs)
    assert 2 <= steps.counts[0] <= 3
    assert steps.due(Known(told=tuple(short[:1]))) is None
    assert steps.due(Known(told=tuple(short))) == 1
    assert steps.due(Known(told=tuple(short), running=(Running(point={"x": 3}),))) is None
    broken = Told(point={"x": 3}, score=None, failed=True)
    assert steps.due(Known(told=(*short, broken))) is None, "it went on, and that came to nothing"
