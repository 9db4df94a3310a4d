"""The tree-structured Parzen estimator (Bergstra et al., NIPS 2011), as implemented in Optuna."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from nas.surrogate.candidates import Candidates


def make(seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """A sampler that draws at random until it knows the results of `startup` candidates, at least one."""
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(1, startup))
