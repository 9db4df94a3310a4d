"""Where the surrogate's candidates come from: what asks a sampler offers this beside its questions."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from nas.surrogate.encoding import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


class Candidates(Protocol):
    """Points that may be tried next, and how Optuna is told of them."""

    @property
    def resumable(self) -> bool:
        """Whether a candidate that ended at a lower fidelity can be proposed again, to be trained on."""

    def around(self, best: Sequence[Point], rng: random.Random) -> Sequence[Point]:
        """Hundreds of them: draws, and what is near the `best` so far. Some may be known."""

    def parameters(self, point: Point) -> Mapping[str, tuple[BaseDistribution, float | int]]:
        """A point's parameters in the study: what each is from, and its value."""
