"""Draws at random, whatever it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from nas.surrogate.candidates import Candidates


def make(seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """It learns nothing, so `startup` means nothing to it."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)
