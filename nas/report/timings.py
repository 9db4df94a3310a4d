"""How long the candidates of a run were timed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nas.latency.budget import Budgets
from nas.runs.folder import RunFolder
from nas.runs.spent import spent_of
from nas.runs.trial import Trial
from nas.terminal import percent


@dataclass(frozen=True, kw_only=True)
class Timings:
    """What solving the widths of candidates cost. Published networks at their own width and certificates are beside."""

    candidates: int
    """Of which that is known."""
    seconds: float
    """Of timing for a candidate: the median."""
    measurements: float
    """The same of how many networks were timed for it."""
    share: float | None
    """Of the time that was worked on the run (0..1), all of these together; None where that is not known."""


def timings_of(run: RunFolder, trials: Sequence[Trial], budgets: Budgets) -> Timings | None:
    """Of the candidates for these budgets, which the run's time is that of; None where no record tells, as in runs of
    earlier versions.
    """
    recorded = [run.timed(trial) for trial in trials if any(trial.is_for(budget) for budget in budgets)]
    timed = [(each.seconds, len(each.measured)) for each in recorded if each.seconds is not None]
    if not timed:
        return None
    seconds, counts = zip(*timed, strict=True)
    whole = spent_of(run).seconds
    return Timings(
        candidates=len(timed),
        seconds=round(statistics.median(seconds), 2),
        measurements=statistics.median(counts),
        share=round(sum(seconds) / whole, 4) if whole >= sum(seconds) > 0 else None,
    )


def timing_words(timings: Timings | None) -> str:
    """The same in a sentence; empty where nothing is known."""
    if timings is None:
        return ""
    share = "" if timings.share is None else f"; {percent(timings.share)} % of the run's time was that"
    measurements = f"{timings.measurements:g} measurement{'' if timings.measurements == 1 else 's'}"
    return f"Timing a candidate took {timings.seconds:.1f} s in {measurements}, in the median{share}."
