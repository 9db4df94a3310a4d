"""What timing in several precisions brought: in which of them candidates count, and what the lower ones take."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nas.latency.record import Statistic
from nas.latency.target import PRECISIONS
from nas.report.standings import TrialSummary


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
    times_as_long: float | None
    """Its latency over that in the highest, the median over these; None where there is none."""


def lower_precisions(candidates: Sequence[TrialSummary], statistic: Statistic) -> tuple[LowerPrecision, ...]:
    """One for each precision below the highest in which some candidate was timed; none where there is one alone."""
    taken = [
        {
            each.timing.precision: each.timing.milliseconds,
            **{other.precision: other.milliseconds(statistic) for other in each.timing.other_precisions},
        }
        for each in candidates
    ]
    highest, *lower = [each for each in PRECISIONS if any(each in one for one in taken)] or [""]
    found = []
    for precision in lower:
        ratios = [one[precision] / one[highest] for one in taken if precision in one and highest in one]
        found.append(
            LowerPrecision(
                precision=precision,
                counted=sum(each.timing.precision == precision for each in candidates),
                candidates=len(candidates),
                highest=highest,
                compared=len(ratios),
                times_as_long=round(statistics.median(ratios), 4) if ratios else None,
            )
        )
    return tuple(found)


def precision_words(found: LowerPrecision) -> str:
    """How many candidates count in it, and what it takes, in a sentence."""
    counted = f"{found.counted} of {found.candidates} candidates count in {found.precision}"
    if found.times_as_long is None:
        return f"{counted}."
    all_of_them = found.compared == found.candidates
    median = "" if all_of_them else f" of the {found.compared} that were timed in both"
    return (
        f"{counted}; {found.precision} took {found.times_as_long:.2f} times as long as {found.highest} in the median"
        f"{median}."
    )
