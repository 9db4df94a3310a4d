"""The candidates of a run compared with each other: their figures, and the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from nas.latency.budget import Budgets
from nas.report.winners import LatencySummary, Winner
from nas.runs.trial import Origin, Pretrained
from space import strict

Status = Literal["infeasible", "failed", "paused", "stopped", "unfinished", "finished"]
Role = Literal["winner", "published, own width", "published, scaled", "published, pruned", "best random", "best guided"]


@dataclass(frozen=True, kw_only=True)
class TrialSummary:
    """A trial, or a published network at its own width, with its mIoU (0..1) after the epochs of both phases.

    `status`: `infeasible` is over the budget and was not trained; `paused` is at the end of a rung before the last;
    `stopped` was ended by an earlier version in the middle of its schedule; `unfinished` has epochs to come.
    """

    number: int
    name: str
    key: str
    origin: Origin
    status: Status
    failed: str
    timing: LatencySummary
    parameters: int
    multiply_adds: int
    search: tuple[float | None, ...]
    """mIoU after each epoch of the search phase; None for epochs that were not scored, and for those that trained only
    the encoder, whose score is not the network's."""
    finish: tuple[float | None, ...]
    """mIoU after each epoch of the finish; None for epochs that were not scored."""
    rungs: tuple[int, ...]
    """Epochs of the search phase at which a rung ended; empty for a single schedule."""
    parent: str  # the published network that it was scaled or pruned from, or empty
    pretrained: Pretrained | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Its layers with weights from the study's `init`; None without `init`, and in runs of earlier versions."""

    @property
    def search_miou(self) -> float | None:
        """The last mIoU of the search phase: that after its last epoch, unless the training is under way."""
        return _last(self.search)

    @property
    def finish_miou(self) -> float | None:
        """The last mIoU of the finish: that after its last epoch, unless the training is under way."""
        return _last(self.finish)

    @property
    def miou(self) -> float | None:
        """mIoU after the longest training so far."""
        return self.search_miou if self.finish_miou is None else self.finish_miou

    @property
    def epochs(self) -> int:
        """Epochs of both phases together."""
        return len(self.search) + len(self.finish)

    @property
    def curve(self) -> tuple[tuple[int, float], ...]:
        """The epochs with an mIoU, counted from 1 through both phases, and that mIoU."""
        each = enumerate((*self.search, *self.finish), 1)
        return tuple((epoch, miou) for epoch, miou in each if miou is not None)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One row of the leaderboard. `search_miou` is after equal training, `miou` after all `epochs` until the last one
    that was scored.
    """

    place: Role
    name: str
    timing: LatencySummary
    search_miou: float | None
    miou: float | None
    epochs: int
    parameters: int
    multiply_adds: int


def _last(mious: Sequence[float | None]) -> float | None:
    return next((miou for miou in reversed(mious) if miou is not None), None)


def leaderboard(
    winners: Iterable[Winner | None], trials: Sequence[TrialSummary], company: Sequence[TrialSummary], budgets: Budgets
) -> tuple[Standing, ...]:
    """The winner, then published networks and the best random and guided candidates, by descending mIoU. With several
    budgets, networks are grouped by the smallest budget that they are inside of, with those over all budgets at the
    end.
    """
    places: list[tuple[Role, TrialSummary]] = [("published, own width", each) for each in company]
    places += [("published, scaled", each) for each in trials if each.origin == "seed"]
    places += [("published, pruned", each) for each in trials if each.origin == "pruned"]
    kinds: tuple[tuple[Role, Origin], ...] = (("best random", "random"), ("best guided", "guided"))
    for place, origin in kinds:
        found = {
            best.key: best
            for budget in budgets
            if (best := _best([each for each in trials if each.origin == origin], budget.milliseconds)) is not None
        }
        places += [(place, each) for each in found.values()]
    certified = [each for each in winners if each is not None]
    themselves = {each.key for each in certified if not each.pruned}
    by_key = {each.key: each for each in (*company, *trials)}
    rows = [_standing(place, each, each) for place, each in places if each.key not in themselves]
    rows += [_standing("winner", each, by_key.get(each.key or "")) for each in certified]
    order = {str(budget): place for place, budget in enumerate(budgets)}

    def rank(row: Standing) -> tuple[float, bool, bool, float, float]:
        own = row.timing.budget if row.timing.within_budget or row.place == "winner" else ""
        group = order.get(own, math.inf) if budgets.several else 0
        return group, row.place != "winner", row.miou is None, -(row.miou or 0), row.timing.milliseconds

    return tuple(sorted(rows, key=rank))


def _standing(place: Role, network: TrialSummary | Winner, trained: TrialSummary | None) -> Standing:
    """The row of a network; `trained` is the candidate that it was trained as, if any."""
    return Standing(
        place=place,
        name=network.name,
        timing=network.timing,
        search_miou=None if trained is None else trained.search_miou,
        miou=network.miou,
        epochs=0 if trained is None or not trained.curve else trained.curve[-1][0],
        parameters=network.parameters,
        multiply_adds=network.multiply_adds,
    )


def _best(candidates: Sequence[TrialSummary], milliseconds: float) -> TrialSummary | None:
    """The candidate with the highest mIoU inside a budget; finished candidates come before all others."""
    eligible = [each for each in candidates if each.miou is not None and each.timing.milliseconds <= milliseconds]
    return max(eligible, key=lambda each: (each.status == "finished", each.miou or 0.0), default=None)
