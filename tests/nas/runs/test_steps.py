"""The rungs at which candidates of a search may pause."""

from __future__ import annotations

import pytest

from nas.runs.steps import rungs_for
from nas.study import SearchPlan


@pytest.mark.parametrize(
    ("epochs", "rungs"),
    [
        (2, (2,)),
        (4, (1, 4)),
        (8, (2, 8)),
        (12, (3, 12)),
        (16, (4, 16)),
        (24, (2, 6, 24)),
        (128, (8, 32, 128)),
    ],
)
def test_a_rung_below_a_quarter_has_at_least_two_epochs(epochs: int, rungs: tuple[int, ...]) -> None:
    assert rungs_for(SearchPlan(), epochs) == rungs
    assert rungs_for(SearchPlan(stop_weak=False), epochs) == (epochs,)
