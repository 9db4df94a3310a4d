"""Which rungs are worth it, and of how many short trainings one goes on: as far as rungs are seen to agree.

A rung is a share of a whole training at which its schedule has come to its end. Which ones are used follows from what
they cost and how well they are correlated with whole trainings (Peherstorfer, Willcox and Gunzburger, "Optimal model
management for multifidelity Monte Carlo estimation", 2016): where a rung tells too little for what it costs, it is left
out, and candidates train on to the next. Of those in use, each takes as much effort as the next one times the share of
that one's scores that it explains; in replays (`studies/search`) the counts that the same theory gives found less.

The correlation is that of ranks (Kendall's tau of the networks that both rungs know), and as those that went on are the
better ones, among which scores differ less, it is corrected for that range (Thorndike, "Personnel selection", 1949).
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

EXPECTED = 0.71  # rank correlation with whole trainings of those a sixteenth as long, before any is measured
SIXTEEN = 16.0
SURENESS = 16  # measured pairs that this counts for: Kendall's tau of so many is off by 0.2
LEAST_GAIN = 0.01  # of the effort, for a rung that is to be used


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The rungs in use, and how many trainings of each go with a whole one."""

    rungs: tuple[float, ...]
    """Ascending; the last is 1."""
    counts: tuple[float, ...]
    """At least 1; that of the last is 1."""

    def after(self, fidelity: float) -> float:
        """The rung that a candidate is trained to next which has so much behind it."""
        return next((rung for rung in self.rungs if rung > fidelity), 1.0)

    def due(self, known: Known) -> float | None:
        """The rung above which too few are: of those that paused before it one has to go on. None where none has to."""
        reached: dict[object, float] = {}
        for told in known.told:
            if (told.score is not None or told.failed) and not told.elsewhere:
                reached[key(told.point)] = max(told.fidelity, reached.get(key(told.point), 0.0))
        for running in known.running:
            reached[key(running.point)] = running.fidelity
        at_least = [sum(fidelity >= rung for fidelity in reached.values()) for rung in self.rungs]
        for place in range(len(self.rungs) - 2, -1, -1):
            wanted = self.counts[place] / self.counts[place + 1]
            if at_least[place] >= wanted * (at_least[place + 1] + 1):
                return self.rungs[place + 1]
        return None


def ladder(told: Sequence[Told], rungs: Sequence[float]) -> Ladder:
    """What to use of `rungs`, from what is known of them: those with which most is learned of whole trainings for the
    same effort, and as few as are nearly as good.
    """
    scores: dict[object, dict[float, float]] = {}
    for each in told:
        if each.score is not None and not each.over:
            scores.setdefault(key(each.point), {})[each.fidelity] = each.score
    squares = {rung: _correlation(list(scores.values()), rung) ** 2 for rung in rungs[:-1]} | {1.0: 1.0}
    best: tuple[float, ...] = (1.0,)
    least = 1.0
    for count in range(1, len(rungs)):
        for lower in itertools.combinations(rungs[:-1], count):
            effort = _effort((*lower, 1.0), squares)
            if effort < least - LEAST_GAIN:
                best, least = (*lower, 1.0), effort
    return Ladder(rungs=best, counts=_counts(best, squares))


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


def _counts(rungs: Sequence[float], squares: Mapping[float, float]) -> tuple[float, ...]:
    """Trainings of a rung take as much effort as those of the next one, times what they explain of these."""
    counts = [1.0]
    costs = [cost for cost, _ in _steps(rungs, squares)]
    for place in range(len(rungs) - 2, -1, -1):
        explained = squares[rungs[place]] / squares[rungs[place + 1]]
        counts.insert(0, counts[0] * max(1.0, explained * costs[place + 1] / costs[place]))
    return tuple(counts)


def _correlation(scores: Sequence[Mapping[float, float]], rung: float) -> float:
    """Of scores at a rung with those of whole trainings; 0 to just below 1."""
    expected: float = EXPECTED ** (math.log(1 / rung) / math.log(SIXTEEN))
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
