"""The tree-structured Parzen estimator (Bergstra et al., NIPS 2011), as Optuna has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from nas.surrogate.candidates import Candidates


def make(seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """Random until it was told of `startup` candidates, one at least."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, startup))
