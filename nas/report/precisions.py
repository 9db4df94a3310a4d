"""Results of timing in several precisions: how often each was chosen, and how fast the lower ones are."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nas.host.words import counted
from nas.latency.record import Statistic
from nas.latency.target import PRECISIONS
from nas.report.standings import TrialSummary
from nas.report.winners import LatencySummary


@dataclass(frozen=True, kw_only=True)
class LowerPrecision:
    """A precision below the highest in which the candidates of a run were timed."""

    precision: str
    counted: int
    """Number of candidates for which it was chosen, being significantly faster than every higher one."""
    candidates: int
    """Number of candidates that were timed."""
    highest: str
    compared: int
    """Number of candidates timed in both this precision and the highest; earlier versions kept one of the two."""
    undisturbed: int
    """Number of these for which the machine was quiet both times."""
    times_as_long: float | None
    """Median ratio of the latency in this precision to that in the highest, over the undisturbed candidates or, where
    there are none, over all that were timed in both; None without any."""


def lower_precisions(candidates: Sequence[TrialSummary], statistic: Statistic) -> tuple[LowerPrecision, ...]:
    """Each precision in which candidates were timed, except the highest; empty where there was only one."""
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
    """Latencies of a candidate by precision."""
    fastest = _Taken(milliseconds=timing.milliseconds, flagged=bool(timing.flagged))
    others = {
        each.precision: _Taken(milliseconds=each.milliseconds(statistic), flagged=bool(each.flagged))
        for each in timing.other_precisions
    }
    return {timing.precision: fastest, **others}


def precision_sentence(found: LowerPrecision) -> str:
    """How many candidates a precision was chosen for, and its latency against the highest one, in a sentence."""
    chosen = f"{found.precision} is the chosen precision for {found.counted} of {found.candidates} candidates"
    if found.times_as_long is None:
        return f"{chosen}."
    basis = ""
    if found.undisturbed == 0:
        basis = f" (from {counted(found.compared, 'candidate')} timed in both, on a busy machine)"
    elif found.undisturbed < found.candidates:
        undisturbed = "" if found.undisturbed == found.compared else " undisturbed"
        basis = f" (from {counted(found.undisturbed, 'candidate')} timed{undisturbed} in both)"
    return f"{chosen}; in the median it took {found.times_as_long:.2f} times as long as {found.highest}{basis}."
