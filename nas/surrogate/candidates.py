"""Where candidates come from, and what a study's trials tell: what asks a sampler offers this beside its questions.

A trial says in its user attributes what it was (`ANSWERS`, a genotype) and what its training took (`COST`; `WITHDRAWN`
where there was none; `ELSEWHERE` where another search did that, so that it can be proposed here but not trained on):
whoever tells it writes them. It reports its scores on the way and the last one, each at its step
(`step_of`). A whole training is complete, one that ended before is pruned, and one that broke has failed. The study
lists the numbers of trials that count as if they had never been (`FORGOTTEN`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from nas.surrogate.encoding import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ANSWERS = "answers"
COST = "cost"
WITHDRAWN = "withdrawn"
ELSEWHERE = "elsewhere"
FORGOTTEN = "forgotten"
STEPS = 1000  # a whole training, in the steps at which scores are reported


def step_of(fidelity: float) -> int:
    """The step to report a score at that is from this share of a whole training."""
    return STEPS if fidelity >= 1 else min(max(1, round(STEPS * fidelity)), STEPS - 1)


class Candidates(Protocol):
    """Points that may be tried next, and how Optuna is told of them."""

    @property
    def resumable(self) -> bool:
        """Whether a candidate that ended at a lower fidelity can be proposed again, to be trained on."""

    def around(self, best: Sequence[Point], rng: random.Random) -> Sequence[Point]:
        """Hundreds of them: draws, and what is near the `best` so far. Some may be known."""

    def parameters(self, point: Point) -> Mapping[str, tuple[BaseDistribution, float | int]]:
        """A point's parameters in the study: what each is from, and its value."""
