"""Kendall's tau against its definition and a worked example."""

from __future__ import annotations

import math
import random
from itertools import combinations

import pytest

from nas.report.agreement import agreement
from nas.surrogate.agreement import kendall_tau


def test_kendalls_tau_of_a_worked_example() -> None:
    # Of the six pairs only (2, 3) with (3, 2) is in the wrong order: (5 - 1) / 6.
    assert kendall_tau([(1, 1), (2, 3), (3, 2), (4, 4)]) == pytest.approx(4 / 6)


def test_the_tau_of_equal_orders_is_one_and_of_reverse_orders_minus_one() -> None:
    values = [3.0, 1.0, 2.0, 9.0, 4.0]
    assert kendall_tau([(value, value**3) for value in values]) == 1
    assert kendall_tau([(value, -value) for value in values]) == -1


def test_ties_count_in_neither_order() -> None:
    # Pairs: one tied in the first (leaving 2), none in the second (3); both others concordant.
    assert kendall_tau([(1, 1), (1, 2), (2, 3)]) == pytest.approx(2 / math.sqrt(2 * 3))


def test_the_tau_without_ties_follows_from_the_share_of_ordered_pairs() -> None:
    rng = random.Random(0)
    pairs = [(rng.random(), rng.random()) for _ in range(30)]
    right = sum((a < b) == (c < d) for (a, c), (b, d) in combinations(pairs, 2))
    assert kendall_tau(pairs) == pytest.approx(2 * right / math.comb(30, 2) - 1)


def test_too_few_or_equal_points_have_no_tau() -> None:
    assert agreement("a", "b", [(1, 1), (2, 2), (3, 3)]).tau is None
    assert agreement("a", "b", [(1, 1), (2, 2), (3, 3), (4, 4)]).tau == 1
    assert agreement("a", "b", [(1, index) for index in range(6)]).tau is None
