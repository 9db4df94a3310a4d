"""Plans of a pruning: refused values, and the distribution of epochs."""

from __future__ import annotations

from typing import Any

import pytest

from nas.prune.plan import PruningPlan
from space import UserError


@pytest.mark.parametrize("wrong", [{"steps": 0, "epochs": 1}, {"epochs": -1}, {"epochs": 1, "importance": "fischer"}])
def test_an_impossible_plan_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="expected"):
        PruningPlan(**wrong)


@pytest.mark.parametrize(
    ("epochs", "steps", "shares"), [(4, 1, [4]), (4, 2, [1, 3]), (10, 3, [1, 1, 8]), (0, 2, [0, 0])]
)
def test_epochs_are_shared_among_steps_and_a_trim(epochs: int, steps: int, shares: list[int]) -> None:
    plan = PruningPlan(epochs=epochs, steps=steps)
    assert [plan.epochs_after(step) for step in range(1, steps + 1)] == shares
    assert plan.epochs_of_trim == (epochs + 3) // 4
