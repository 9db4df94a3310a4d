"""Draws at random, whatever it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna


def make(seed: int, startup: int) -> optuna.samplers.BaseSampler:
    """It learns nothing, so `startup` means nothing to it."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)
