"""Random search: independent random draws that ignore all results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from nas.surrogate.candidates import Candidates


def make(seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """A sampler that learns nothing; `startup` is ignored."""
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)
