"""Which rungs are worth it, and when one that paused has to go on.

A rung is a share of a whole training at which its schedule has come to its end. What trainings below a rung may cost
before one has to go on to it is a fixed share of what that rung costs, whatever a short training costs and however well
it ranks: in replays (`studies/search`) such a share found as much as those that theories give for how well the two are
correlated, and more where a short training is dear, since networks that are far apart are ordered much better than the
good ones are.

A rung that is seen to tell too little for its cost is left out, and candidates train on to the next. What it is worth
follows from its correlation with whole trainings (Peherstorfer, Willcox and Gunzburger, "Optimal model management for
multifidelity Monte Carlo estimation", 2016). That is of ranks (Kendall's tau of the networks that both rungs know), and
as those that went on are the better ones, among which scores differ less, it is corrected for that range (Thorndike,
"Personnel selection", 1949).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.surrogate.agreement import kendall_tau
from nas.surrogate.encoding import key
from nas.surrogate.told import Known, Told

SHARE = 0.6  # of what a rung costs: so much goes into trainings below it before one of them has to go on
# Rank correlation of the lowest rung with whole trainings, before it is measured, however dear it is: of networks that
# were trained for one epoch and for four (`studies/search/camvid.csv`) it is 0.8, with those left out that a search
# proposed 0.77, as their Kendall's tau of 0.60 and 0.56 has it; rounded down. A search soon measures its own.
EXPECTED = 0.75
SURENESS = 16  # measured pairs that this counts for: Kendall's tau of so many is off by 0.2
LEAST_GAIN = 0.01  # of the effort, for a rung that is to be used


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The rungs in use."""

    rungs: tuple[float, ...]
    """Ascending; the last is 1."""

    def after(self, fidelity: float) -> float:
        """The rung that a candidate is trained to next which has so much behind it."""
        return next((rung for rung in self.rungs if rung > fidelity), 1.0)

    def due(self, known: Known) -> tuple[float, ...]:
        """The rungs for which enough was spent below them, descending: one that paused has to go on to the highest of
        these that one can go on to.
        """
        found = []
        for rung in self.rungs[:0:-1]:
            since = []
            for fidelity in reversed(known.begun):
                if fidelity >= rung:
                    break
                since.append(fidelity)
            first = len(since) == len(known.begun)  # which goes on at once
            if since and (first or sum(since) >= SHARE * rung):
                found.append(rung)
        return tuple(found)


def ladder(told: Sequence[Told], rungs: Sequence[float]) -> Ladder:
    """What to use of `rungs`, from what is known of them: those with which most is learned of whole trainings for the
    same effort, and as few as are nearly as good.
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
    """How many candidates begin for the effort of one whole training, where each rung is gone on to at the latest."""
    rate, before = 1 / rungs[0], rungs[0]
    for rung in rungs[1:]:
        below = SHARE * rung
        rate, before = below * rate / (below + rung - before), rung
    return rate


def _steps(rungs: Sequence[float], squares: Mapping[float, float]) -> list[tuple[float, float]]:
    """For each rung what it costs after the one before, and how much more of whole trainings it explains."""
    pairs = itertools.pairwise((0.0, *rungs))
    return [(rung - before, squares[rung] - squares.get(before, 0.0)) for before, rung in pairs]


def _effort(rungs: Sequence[float], squares: Mapping[float, float]) -> float:
    """What it takes to learn as much as by whole trainings alone, as a share of these; infinite where a rung explains
    less for its cost than the next one, which would then have as many trainings.
    """
    steps = _steps(rungs, squares)
    worth = [explained / cost for cost, explained in steps]
    if any(higher >= lower for lower, higher in itertools.pairwise(worth)):
        return math.inf
    return float(sum(math.sqrt(cost * explained) for cost, explained in steps) ** 2)


def _correlation(scores: Sequence[Mapping[float, float]], rung: float, lowest: float) -> float:
    """Of scores at a rung with those of whole trainings; 0 to just below 1."""
    expected: float = EXPECTED ** (math.log(rung) / math.log(lowest))
    pairs = [(each[rung], each[1.0]) for each in scores if rung in each and 1.0 in each]
    tau = kendall_tau(pairs)
    if tau is None:
        return expected
    measured = math.sin(math.pi / 2 * max(tau, 0.0))
    every = _spread([each[rung] for each in scores if rung in each])
    these = _spread([first for first, _ in pairs])
    wider = max(1.0, every / these) if these else 1.0  # where most are tied at the top, nothing is known of the range
    measured = measured * wider / math.sqrt(1 + measured**2 * (wider**2 - 1))
    return min(0.99, (SURENESS * expected + len(pairs) * measured) / (SURENESS + len(pairs)))


def _spread(values: Sequence[float]) -> float:
    """The standard deviation, those far below the median as `nas.surrogate.choice` takes them."""
    apart = np.asarray(values) - np.median(values)
    return float(np.maximum(apart, -apart.max()).std())
