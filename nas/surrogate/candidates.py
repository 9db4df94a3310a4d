"""Where candidates come from, and what a study's trials tell: what asks a sampler offers this beside its questions.

A trial says in its user attributes what it is (`ANSWERS`, a genotype), of what share of a whole training it is
(`FIDELITY`: how far that training goes, counted from the candidate's first step), and that it came to nothing
(`WITHDRAWN`), or that another search trained it (`ELSEWHERE`), so that it can be proposed here but not trained on, and
that it did so on other data (`OTHER_DATA`), so that its score compares with such only: whoever asks and tells writes
them. It reports its score at the step that is from (`step_of`). A whole training is complete, one that paused before is
pruned, and one that broke has failed. A candidate whose training goes on is another trial with the same answers. The
study lists the numbers of trials that count as if they had never been (`FORGOTTEN`). With several budgets the genotype
holds one more answer, which budget it is for (`BUDGET`): the same answers for another one are another network.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from nas.surrogate.encoding import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ANSWERS = "answers"
BUDGET = "budget"  # no axis is called so
FIDELITY = "fidelity"
WITHDRAWN = "withdrawn"
ELSEWHERE = "elsewhere"
OTHER_DATA = "other data"
FORGOTTEN = "forgotten"
STEPS = 1000  # a whole training, in the steps at which scores are reported


def step_of(fidelity: float) -> int:
    """The step to report a score at that is from this share of a whole training."""
    return STEPS if fidelity >= 1 else min(max(1, round(STEPS * fidelity)), STEPS - 1)


def rungs_of(candidates: Candidates) -> tuple[float, ...]:
    """The rungs of `candidates` as scores are reported at them."""
    return tuple(step_of(rung) / STEPS for rung in candidates.rungs)


class Candidates(Protocol):
    """Points that may be tried next, and how Optuna is told of them."""

    @property
    def budget(self) -> float | None:
        """Which of several budgets the next one is for; None where there is one."""

    @property
    def rungs(self) -> tuple[float, ...]:
        """The shares of a whole training at which a training can pause, ascending; the last is 1. A candidate that
        paused can be proposed again, to be trained on.
        """

    def around(self, best: Sequence[Point], rng: random.Random) -> Sequence[Point]:
        """Hundreds of them: draws, and what is near the `best` so far. Some may be known."""

    def facts(self, point: Point) -> Mapping[str, float]:
        """Numbers that are known of a point before it is trained, beside its answers; always the same ones."""

    def parameters(self, point: Point) -> Mapping[str, tuple[BaseDistribution, float | int]]:
        """A point's parameters in the study: what each is from, and its value."""
