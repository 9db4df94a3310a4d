"""A Gaussian process over whole and short trainings, and the most improvement expected (`nas.surrogate`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from nas.surrogate.candidates import Candidates

RESUMES = True
STATELESS = True


def make(seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """Random until it was told of `startup` candidates, one at least."""
    from nas.surrogate.sampler import SurrogateSampler

    return SurrogateSampler(seed=seed, startup=startup, candidates=candidates)
