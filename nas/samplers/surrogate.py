"""A Gaussian process over whole and short trainings, with expected improvement (`nas.surrogate`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from nas.surrogate.candidates import Candidates

RESUMES = True
STATELESS = True


def make(seed: int, startup: int, candidates: Candidates) -> optuna.samplers.BaseSampler:
    """A sampler that draws at random until it knows `startup` candidates (at least one), trained or in training."""
    from nas.surrogate.sampler import SurrogateSampler

    return SurrogateSampler(seed=seed, startup=startup, candidates=candidates)
