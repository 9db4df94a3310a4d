"""Several runs of one question that differ only in their seeds: the lead of their winners, as means with intervals.

Networks are compared after equal training. Those scaled to a budget or drawn at random are compared with the winner's
score in the search phase after the same number of epochs; published networks at their own width, which train as long as
a finalist, with its final score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.host.words import counted
from nas.report.chance import Mean, mean_of
from nas.report.standings import Role, TrialSummary
from nas.report.summary import Summary
from nas.report.winners import Winner
from nas.runs.trial import Origin
from nas.terminal import table
from space import UserError

KINDS: tuple[tuple[Role, Origin], ...] = (
    ("published, scaled", "seed"),
    ("published, own width", "company"),
    ("best random", "random"),
)


@dataclass(frozen=True, kw_only=True)
class Beside:
    """The winner of one run compared with the best network of a kind inside its budget."""

    run: str
    network: str
    """Name of that network; empty where none in the run was trained like the winner."""
    above: float | None
    """mIoU (0..1) of the winner minus that of the network."""


@dataclass(frozen=True, kw_only=True)
class Above:
    """The lead of the winners for a budget over the best networks of a kind."""

    budget: str
    kind: Role
    mean: Mean | None
    """Mean lead over the runs that have such a network; None where no run has."""
    runs: tuple[Beside, ...]


@dataclass(frozen=True, kw_only=True)
class Several:
    """The results of a question over several seeds."""

    runs: tuple[str, ...]
    data: str
    target: str
    input_size: tuple[int, int]
    winners: Mapping[str, Mean]
    """The mIoU (0..1) of the winners for each budget."""
    above: tuple[Above, ...]
    finish_epochs: tuple[int, ...]
    """Epochs for which each run finished its networks; a time limit may have left it fewer."""


def summarize_several(summaries: Sequence[Summary]) -> Several:
    """The results of runs that differ only by chance (`nas.runs.alike`).

    Raises: UserError when one of them has no winner.
    """
    for each in summaries:
        if not each.winners:
            raise UserError(f"expected finished runs, got {each.run} without a winner; leave it out, or resume it")
    first = summaries[0]
    winners: dict[str, Mean] = {}
    above: list[Above] = []
    for budget, milliseconds in first.budgets:
        found = [(each, winner) for each in summaries if (winner := _winner(each, budget)) is not None]
        if (mean := mean_of([winner.miou for _, winner in found])) is not None:
            winners[budget] = mean
        for kind, origin in KINDS:
            runs = tuple(_beside(summary, winner, origin, milliseconds) for summary, winner in found)
            mean = mean_of([each.above for each in runs if each.above is not None])
            above.append(Above(budget=budget, kind=kind, mean=mean, runs=runs))
    return Several(
        runs=tuple(each.run for each in summaries),
        data=first.data,
        target=first.target,
        input_size=first.input_size,
        winners=winners,
        above=tuple(above),
        finish_epochs=tuple(map(_finish_epochs, summaries)),
    )


def several_table(several: Several) -> str:
    """The results as plain text, in percent and points, followed by a sentence if finishes differ in length."""
    rows = [(budget, "mIoU of the winner", *_words(mean, ""), "") for budget, mean in several.winners.items()] + [
        (
            each.budget,
            f"above the {each.kind.removeprefix('best ')}",
            *_words(each.mean, "+"),
            ", ".join("-" if one.above is None else f"{100 * one.above:+.1f} {one.network}" for one in each.runs),
        )
        for each in several.above
    ]
    text = table(rows, ("budget", "points of mIoU", "mean", "+-", "runs", "run by run"))
    return "\n\n".join(filter(None, (text, _unlike_finishes(several))))


def _unlike_finishes(several: Several) -> str:
    """A sentence on finishes of different lengths; empty where all have the same."""
    if len(set(several.finish_epochs)) < 2:
        return ""
    runs = zip(several.runs, several.finish_epochs, strict=True)
    lengths = ", ".join(f"{counted(epochs, 'epoch')} in {run}" for run, epochs in runs)
    return (
        f"The finishes of these runs differ in length ({lengths}): scores at their ends are not comparable from run to "
        "run, and means of them mix these lengths."
    )


def _finish_epochs(summary: Summary) -> int:
    """Epochs of the finish of a run, which all its networks have alike; 0 where none was finished."""
    return max((len(each.finish) for each in summary.measured if each.status == "finished"), default=0)


def _words(mean: Mean | None, sign: str) -> tuple[str, str, str]:
    if mean is None:
        return "-", "-", "0"
    return f"{100 * mean.mean:{sign}.1f}", "-" if mean.half is None else f"{100 * mean.half:.1f}", str(mean.count)


def _winner(summary: Summary, budget: str) -> Winner | None:
    """The winner for a budget."""
    if not summary.answers:
        return summary.winner
    return next((each.winner for each in summary.answers if each.budget == budget), None)


def _beside(summary: Summary, winner: Winner, origin: Origin, milliseconds: float) -> Beside:
    """The winner compared with the best of the longest-trained networks of an origin inside a budget."""
    inside = [each for each in summary.measured if each.origin == origin and each.timing.milliseconds <= milliseconds]
    own = next((each for each in summary.measured if each.key == winner.key and not winner.pruned), None)
    found = [(each, above) for each in inside if (above := _above(winner, own, each)) is not None]
    best, above = min(found, key=lambda pair: (-len(pair[0].search), pair[1]), default=(None, None))
    return Beside(run=summary.run, network="" if best is None else best.name, above=above)


def _above(winner: Winner, own: TrialSummary | None, other: TrialSummary) -> float | None:
    """The winner's mIoU minus another network's after equal training; None where they had no equal training. `own`: the
    candidate that became the winner unchanged, if any.
    """
    if other.status not in ("paused", "finished"):
        return None
    if other.origin == "company":
        return None if other.miou is None else winner.miou - other.miou
    epochs = len(other.search)
    if own is None or other.search_miou is None or epochs not in {*own.rungs, len(own.search)}:
        return None
    reached = own.search[epochs - 1]
    return None if reached is None else reached - other.search_miou
