"""Decides which rungs are worthwhile, and when a paused candidate has to go on.

A rung is a share of a whole training at which a learning rate schedule has ended. Before a candidate has to go on to a
rung, the trainings below it may cost a fixed share of that rung's cost, independent of how much a short training costs
and how well it ranks. In replays (`studies/search`), a fixed share found networks as good as shares derived from the
correlation of the two rungs, and better ones where short trainings are expensive: short trainings rank very different
networks much better than they rank the good ones.

A rung that tells too little for its cost is left out, and candidates train on to the next. Its worth follows from its
correlation with whole trainings (Peherstorfer, Willcox and Gunzburger, "Optimal model management for multifidelity
Monte Carlo estimation", 2016). This is a rank correlation, from Kendall's tau over the networks with scores at both
rungs. Since only the better networks went on, and their scores differ less, it is corrected for the restricted range
(Thorndike, "Personnel selection", 1949).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.surrogate.agreement import kendall_tau
from nas.surrogate.encoding import key
from nas.surrogate.told import Told

SHARE = 0.6  # share of a rung's cost that trainings below it may take before one of them has to go on
# Assumed rank correlation of the lowest rung with whole trainings before a search has measured its own, whatever the
# rung costs. Networks trained for one epoch and for four (`studies/search/camvid.csv`) have 0.8, or 0.77 without those
# that a search proposed (from Kendall's tau of 0.60 and 0.56); this is rounded down.
EXPECTED = 0.75
SURENESS = 16  # number of measured pairs that the assumption weighs as much as: the error of their Kendall's tau is 0.2
LEAST_GAIN = 0.01  # share of the effort that another rung has to save


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The rungs in use."""

    rungs: tuple[float, ...]
    """The rungs, ascending; the last is 1."""

    def after(self, fidelity: float) -> float:
        """The next rung for a candidate that has been trained to `fidelity`."""
        return next((rung for rung in self.rungs if rung > fidelity), 1.0)

    def due(self, begun: Sequence[float]) -> tuple[float, ...]:
        """The rungs below which enough was spent, descending: a paused candidate has to go on to the highest of these
        that any can go on to. `begun` are the shares of a whole training that candidates of one budget reached or will
        reach, in the order in which their trainings began.
        """
        found = []
        for rung in self.rungs[:0:-1]:
            since = []
            for fidelity in reversed(begun):
                if fidelity >= rung:
                    break
                since.append(fidelity)
            first = len(since) == len(begun)  # no candidate has reached this rung: one goes on at once
            if since and (first or sum(since) >= SHARE * rung):
                found.append(rung)
        return tuple(found)


def ladder(told: Sequence[Told], rungs: Sequence[float]) -> Ladder:
    """The subset of `rungs` to use, given the results so far: the one that needs the least effort to learn equally much
    about whole trainings, and of nearly equal ones the one with the fewest rungs.
    """
    scores: dict[object, dict[float, float]] = {}
    for each in told:
        if each.score is not None and not each.over:
            scores.setdefault(key(each.point), {})[each.fidelity] = each.score
    squares = {rung: _correlation(list(scores.values()), rung, rungs[0]) ** 2 for rung in rungs[:-1]} | {1.0: 1.0}
    best: tuple[float, ...] = (1.0,)
    least = 1.0
    for count in range(1, len(rungs)):
        for lower in itertools.combinations(rungs[:-1], count):
            effort = _effort((*lower, 1.0), squares)
            if effort < least - LEAST_GAIN:
                best, least = (*lower, 1.0), effort
    return Ladder(rungs=best)


def begun_per_training(rungs: Sequence[float]) -> float:
    """Number of candidates that begin per effort of one whole training, if each rung is reached as late as allowed."""
    rate, before = 1 / rungs[0], rungs[0]
    for rung in rungs[1:]:
        below = SHARE * rung
        rate, before = below * rate / (below + rung - before), rung
    return rate


def _steps(rungs: Sequence[float], squares: Mapping[float, float]) -> list[tuple[float, float]]:
    """For each rung, its cost beyond the rung before, and how much more of whole trainings' variance it explains."""
    pairs = itertools.pairwise((0.0, *rungs))
    return [(rung - before, squares[rung] - squares.get(before, 0.0)) for before, rung in pairs]


def _effort(rungs: Sequence[float], squares: Mapping[float, float]) -> float:
    """The effort to learn as much as by whole trainings alone, as a share of theirs. Infinite where a rung explains
    less for its cost than the next one, which would then have as many trainings.
    """
    steps = _steps(rungs, squares)
    worth = [explained / cost for cost, explained in steps]
    if any(higher >= lower for lower, higher in itertools.pairwise(worth)):
        return math.inf
    return float(sum(math.sqrt(cost * explained) for cost, explained in steps) ** 2)


def _correlation(scores: Sequence[Mapping[float, float]], rung: float, lowest: float) -> float:
    """Rank correlation of scores at a rung with those of whole trainings, from 0 to just below 1."""
    expected: float = EXPECTED ** (math.log(rung) / math.log(lowest))
    pairs = [(each[rung], each[1.0]) for each in scores if rung in each and 1.0 in each]
    tau = kendall_tau(pairs)
    if tau is None:
        return expected
    measured = math.sin(math.pi / 2 * max(tau, 0.0))
    every = _spread([each[rung] for each in scores if rung in each])
    these = _spread([first for first, _ in pairs])
    wider = max(1.0, every / these) if these else 1.0  # no correction where scores are tied and the range is unknown
    measured = measured * wider / math.sqrt(1 + measured**2 * (wider**2 - 1))
    sureness = len(pairs) / wider  # the order of networks with nearly equal scores says little about all others
    return min(0.99, (SURENESS * expected + sureness * measured) / (SURENESS + sureness))


def _spread(values: Sequence[float]) -> float:
    """The standard deviation, with values far below the median raised as in `nas.surrogate.choice`."""
    apart = np.asarray(values) - np.median(values)
    return float(np.maximum(apart, -apart.max()).std())
