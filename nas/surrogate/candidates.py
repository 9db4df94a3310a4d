"""The interface between a search and its samplers: the source of candidates, and the attributes of a study's trials.

The search writes user attributes into each trial:

- `ANSWERS`: the genotype of the candidate;
- `FIDELITY`: the share of a whole training that it is trained to, counted from the candidate's first step;
- `WITHDRAWN`: the trial led to nothing and is ignored;
- `ELSEWHERE`: another search trained the candidate, so that it can be proposed here but not resumed;
- `OTHER_DATA`: that was on other data, so that its score is comparable only with others of this kind.

A trial reports its score at the step of its fidelity (`step_of`). A whole training has the state complete, one that
paused earlier the state pruned, and one that failed the state failed. A candidate whose training is resumed is another
trial with the same answers. The study's attribute `FORGOTTEN` lists the numbers of trials that are ignored entirely.
With several budgets the genotype has one more answer, the budget that it is for (`BUDGET`): the same answers for
another budget are another network.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from nas.surrogate.encoding import Point

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

ANSWERS = "answers"
BUDGET = "budget"  # no axis has this name
FIDELITY = "fidelity"
WITHDRAWN = "withdrawn"
ELSEWHERE = "elsewhere"
OTHER_DATA = "other data"
FORGOTTEN = "forgotten"
STEPS = 1000  # the reporting step of a whole training


def step_of(fidelity: float) -> int:
    """The step at which to report a score after this share of a whole training."""
    return STEPS if fidelity >= 1 else min(max(1, round(STEPS * fidelity)), STEPS - 1)


def rungs_of(candidates: Candidates) -> tuple[float, ...]:
    """The rungs of `candidates`, rounded to the steps at which scores are reported."""
    return tuple(step_of(rung) / STEPS for rung in candidates.rungs)


class Candidates(Protocol):
    """Points that may be tried next, and their parameters for Optuna."""

    @property
    def budget(self) -> float | None:
        """The budget, of several, that the next candidate is for; None where there is only one budget."""

    @property
    def rungs(self) -> tuple[float, ...]:
        """The shares of a whole training at which a training can pause, ascending; the last is 1. A paused candidate
        can be proposed again, to be trained further.
        """

    def around(self, best: Sequence[Point], rng: random.Random) -> Sequence[Point]:
        """Hundreds of points: random draws, and neighbours of the `best` so far. Some may be known already."""

    def kind(self, point: Point) -> Hashable:
        """What distinguishes a point in kind, and not by degrees, from others; the same for all where nothing does."""

    def facts(self, point: Point) -> Mapping[str, float]:
        """Numbers known about a point before its training, besides its answers; the same names for every point."""

    def parameters(self, point: Point) -> Mapping[str, tuple[BaseDistribution, float | int]]:
        """A point's parameters in the study: the distribution and value of each."""
