"""What timing in several precisions brought: in which of them candidates count, and what the lower ones take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nas.latency.record import Statistic
from nas.latency.target import PRECISIONS
from nas.report.standings import TrialSummary
from nas.report.winners import LatencySummary


@dataclass(frozen=True, kw_only=True)
class LowerPrecision:
    """A precision beside the highest one in which the candidates of a run were timed."""

    precision: str
    counted: int
    """How many candidates count in it."""
    candidates: int
    """Of so many that were timed."""
    highest: str
    compared: int
    """How many were timed in both; earlier versions kept one of the two."""
    undisturbed: int
    """How many of these on a machine that was quiet both times."""
    times_as_long: float | None
    """Its latency over that in the highest: the median over those, else over all that were timed in both; None where
    there are none.
    """


def lower_precisions(candidates: Sequence[TrialSummary], statistic: Statistic) -> tuple[LowerPrecision, ...]:
    """One for each precision below the highest in which some candidate was timed; none where there is one alone."""
    highest, *lower = timed_in(candidates) or [""]
    taken = [_taken(each.timing, statistic) for each in candidates]
    found = []
    for precision in lower:
        both = [(one[precision], one[highest]) for one in taken if precision in one and highest in one]
        quiet = [(low, high) for low, high in both if not (low.flagged or high.flagged)]
        ratios = [low.milliseconds / high.milliseconds for low, high in quiet or both]
        found.append(
            LowerPrecision(
                precision=precision,
                counted=sum(each.timing.precision == precision for each in candidates),
                candidates=len(candidates),
                highest=highest,
                compared=len(both),
                undisturbed=len(quiet),
                times_as_long=round(statistics.median(ratios), 4) if ratios else None,
            )
        )
    return tuple(found)


def timed_in(candidates: Sequence[TrialSummary]) -> list[str]:
    """The precisions in which some candidate was timed, the highest first."""
    taken = [_taken(each.timing, "p50") for each in candidates]
    return [each for each in PRECISIONS if any(each in one for one in taken)]


@dataclass(frozen=True, kw_only=True)
class _Taken:
    milliseconds: float
    flagged: bool


def _taken(timing: LatencySummary, statistic: Statistic) -> dict[str, _Taken]:
    """What a candidate took, by precision."""
    counts = _Taken(milliseconds=timing.milliseconds, flagged=bool(timing.flagged))
    others = {
        each.precision: _Taken(milliseconds=each.milliseconds(statistic), flagged=bool(each.flagged))
        for each in timing.other_precisions
    }
    return {timing.precision: counts, **others}


def precision_words(found: LowerPrecision) -> str:
    """How many candidates count in it, and what it takes, in a sentence."""
    counted = f"{found.counted} of {found.candidates} candidates count in {found.precision}"
    if found.times_as_long is None:
        return f"{counted}."
    median = ""
    if found.undisturbed == 0:
        median = f" of the {found.compared} that were timed in both, on a busy machine"
    elif found.undisturbed < found.candidates:
        undisturbed = "" if found.undisturbed == found.compared else " undisturbed"
        median = f" of the {found.undisturbed} that were timed in both{undisturbed}"
    return (
        f"{counted}; {found.precision} took {found.times_as_long:.2f} times as long as {found.highest} in the median"
        f"{median}."
    )
