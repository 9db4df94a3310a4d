"""The cost of timing the candidates of a run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from nas.host.words import counted
from nas.latency.budget import Budgets
from nas.runs.folder import RunFolder
from nas.runs.spent import spent_of
from nas.runs.trial import Trial
from nas.terminal import percent


@dataclass(frozen=True, kw_only=True)
class Timings:
    """The cost of solving candidates' widths, without published networks at their own width and certificates."""

    candidates: int
    """Number of candidates for which the cost is known."""
    seconds: float
    """Median seconds of timing per candidate."""
    measurements: float
    """Median number of networks timed per candidate."""
    share: float | None
    """Share of the run's time (0..1) that all these timings took; None where that is not known."""


def timings_of(run: RunFolder, trials: Sequence[Trial], budgets: Budgets) -> Timings | None:
    """The cost of timing the candidates for these budgets, to which the run's recorded time belongs; None where nothing
    was recorded, as in runs of earlier versions.
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
    """The cost of timing in a sentence; empty where it is not known."""
    if timings is None:
        return ""
    share = "" if timings.share is None else f"; these timings were {percent(timings.share)} % of the run's time"
    measurements = counted(timings.measurements, "measurement")
    return f"Timing a candidate took {timings.seconds:.1f} s and {measurements} in the median{share}."
