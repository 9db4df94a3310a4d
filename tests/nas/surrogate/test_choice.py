"""The surrogate's choice of the next point, on small invented landscapes."""

from __future__ import annotations

import numpy as np

from nas.surrogate.choice import choose
from nas.surrogate.encoding import Point, encode
from nas.surrogate.gaussian import MOST_FITTED
from nas.surrogate.told import Begun, Told

GRID: list[Point] = [{"x": x, "y": y} for x in range(9) for y in range(9)]


def height(point: Point) -> float:
    """An invented score, highest at (6, 2)."""
    return 50 - (float(point["x"]) - 6) ** 2 - (float(point["y"]) - 2) ** 2


def others(told: list[Told]) -> list[Point]:
    known = [each.point for each in told]
    return [point for point in GRID if point not in known]


START = [Told(point=GRID[place], score=height(GRID[place])) for place in (0, 4, 8, 12, 22, 30, 35)]


def test_choices_climb_to_higher_scores() -> None:
    told = list(START)
    for _ in range(8):
        candidates = others(told)
        point = candidates[choose(candidates, told, [])]
        told.append(Told(point=point, score=height(point)))
    assert max(each.score for each in START if each.score is not None) < 46
    assert max(each.score for each in told if each.score is not None) >= 49, "of 81 points 15 were tried"


def test_a_running_training_moves_the_next_choice_away() -> None:
    candidates = others(START)
    first = candidates[choose(candidates, START, [])]
    left = [point for point in candidates if point != first]

    def steps(point: Point) -> float:
        return abs(float(first["x"]) - float(point["x"])) + abs(float(first["y"]) - float(point["y"]))

    alone, beside = left[choose(left, START, [])], left[choose(left, START, [Begun(point=first)])]
    assert steps(alone) == 1, "as if nothing ran, the next place"
    assert steps(beside) > 1, "what runs is expected to tell of it"


def test_regions_that_fail_or_are_over_a_budget_are_left_alone() -> None:
    """Scores would be higher in one half of the points, but all of these fail or are over the budget."""
    for useless in (
        {"failed": True, "violations": {"latency": -0.1}},
        {"violations": {"latency": 0.3}},
    ):
        told = [
            Told(point=point, score=None, **useless)
            if float(point["x"]) > 4
            else Told(point=point, score=height(point), violations={"latency": -0.1})
            for point in GRID[::4]
        ]
        candidates = others(told)
        assert float(candidates[choose(candidates, told, [])]["x"]) <= 4


def test_a_failure_is_not_a_score_of_zero() -> None:
    """The neighbours' scores are far below zero: a failure that counted as zero would be the best."""
    told = [Told(point=each.point, score=(each.score or 0) - 1000) for each in START]
    failed = Told(point={"x": 0, "y": 8}, score=None, failed=True)
    candidates = others([*told, failed])
    chosen = candidates[choose(candidates, [*told, failed], [])]
    assert float(chosen["x"]) >= 3


def test_short_trainings_guide_the_choice_without_counting_as_whole_ones() -> None:
    """Short trainings score 40 more here: the best of them is no incumbent, but they show where to look."""
    short = [Told(point=point, score=40 + height(point), fidelity=0.1) for point in GRID[::2]]
    whole = [Told(point=point, score=height(point)) for point in ({"x": 0, "y": 0}, {"x": 8, "y": 8}, {"x": 4, "y": 5})]
    told = [*short, *whole]
    candidates = others(whole)
    chosen = candidates[choose(candidates, told, [])]
    assert height(chosen) >= 48


def test_predictions_use_more_points_than_the_fit_of_parameters() -> None:
    """Good values of all three dimensions come only after the points to which parameters are fitted."""
    rng = np.random.default_rng(0)
    rows = rng.random((2 * MOST_FITTED, 3)).tolist()
    points: list[Point] = [{"x": x, "y": y, "z": z} for x, y, z in rows]
    scores = [-sum((place - 0.7) ** 2 for place in row) for row in rows]
    told = [
        Told(point=point, score=score - 0.1 * (number % 4 > 0), fidelity=0.25 if number % 4 else 1.0)
        for number, (point, score) in enumerate(zip(points, scores, strict=True))
    ]
    candidates: list[Point] = [{"x": x, "y": y, "z": z} for x, y, z in rng.random((200, 3)).tolist()]
    chosen = candidates[choose(candidates, told, [])]
    ranked = sorted(candidates, key=lambda point: sum((float(place) - 0.7) ** 2 for place in point.values()))
    assert chosen in ranked[:3]


def test_a_kind_whose_trainings_always_end_early_is_not_preferred() -> None:
    """After a quarter, where bad trainings end, their scores differ as those of good ones do at the end."""
    told = []
    for place in range(8):
        part = 0.01 * place
        good, bad = {"block": "good", "x": place}, {"block": "bad", "x": place}
        told.append(Told(point=good, score=0.40 + part, fidelity=0.25))
        told.append(Told(point=good, score=0.60 + part))
        told.append(Told(point=bad, score=0.30 + part, fidelity=0.25))
    candidates: list[Point] = [{"block": block, "x": x} for block in ("bad", "good") for x in range(8, 12)]
    for _ in range(4):
        chosen = candidates.pop(choose(candidates, told, []))
        assert chosen["block"] == "good"


def test_a_point_is_chosen_after_nothing_but_failures() -> None:
    told = [Told(point=point, score=None, failed=True) for point in GRID[:5]]
    candidates = others(told)
    assert 0 <= choose(candidates, told, []) < len(candidates)


def test_equal_scores_and_equal_points_are_no_trouble() -> None:
    told = [Told(point=GRID[0], score=1.0), Told(point=GRID[0], score=1.0), Told(point=GRID[1], score=1.0)]
    candidates = others(told)
    assert 0 <= choose(candidates, told, []) < len(candidates)
    assert choose([{}], [Told(point={}, score=1.0), Told(point={}, score=2.0)], []) == 0


def test_points_become_numbers_between_0_and_1() -> None:
    points: list[Point] = [
        {"width": 16, "depth": 1, "block": "sep", "bias": True, "same": 3},
        {"width": 64, "depth": 2, "block": "fpl", "bias": False, "same": 3},
        {"width": 256, "depth": 3, "block": "esp", "bias": False, "same": 3, "rate": 2},
    ]
    vectors = encode(points)
    by_name = {tuple(np.round(column, 3)) for column in vectors.T}
    assert (0.0, 0.5, 1.0) in by_name, "widths by ratios, depths by differences"
    assert vectors.min() == 0
    assert vectors.max() == 1
    apart = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=2)
    assert np.allclose(apart, apart.T)
    words = encode([{"block": "sep"}, {"block": "fpl"}, {"block": "esp"}])
    assert np.allclose(((words[:, None] - words[None]) ** 2).sum(axis=2), 1 - np.eye(3))


def test_a_few_facts_are_not_lost_among_many_answers() -> None:
    """Sixty answers do not influence the score here, and one fact determines it."""
    rng = np.random.default_rng(0)
    rows = rng.integers(3, size=(80, 60))
    points: list[Point] = [{f"x{place}": int(each) for place, each in enumerate(row)} for row in rows]
    scores = {id(point): float(each) for point, each in zip(points, rng.normal(size=80), strict=True)}
    told = [Told(point=point, score=scores[id(point)]) for point in points[:12]]
    chosen = points[12:][choose(points[12:], told, [], lambda point: {"fact": scores[id(point)]})]
    assert scores[id(chosen)] >= sorted(scores[id(point)] for point in points[12:])[-4]
