"""The leaderboard for a terminal."""

from __future__ import annotations

from nas.report.precisions import precision_sentence
from nas.report.standings import Standing
from nas.report.summary import Summary, summarize
from nas.report.timings import timing_words
from nas.runs.folder import RunFolder
from nas.terminal import percent, table


def leaderboard_text(run: RunFolder) -> str:
    """The leaderboard of a run as plain text: its winner, published networks, and the best random and guided ones.

    Raises: UserError when a file of the run is damaged.
    """
    return leaderboard_table(summarize(run))


def leaderboard_table(summary: Summary) -> str:
    """The leaderboard of a summary, followed by sentences on lower precisions and on the cost of timing."""
    statistic = "" if summary.statistic == "p50" else f"{summary.statistic} "
    several = len(summary.precisions) > 1
    precision = ("precision",) if several else ()
    measured = ("budget", "mIoU search", "mIoU end", "epochs", "parameters", "GMAC")
    rows = [
        (
            row.place,
            row.name,
            *([row.timing.precision] if several else []),
            f"{row.timing.milliseconds:.2f}",
            _budget(row, summary),
            percent(row.search_miou),
            percent(row.miou),
            str(row.epochs or "-"),
            f"{row.parameters:,}",
            f"{row.multiply_adds / 1e9:.2f}",
        )
        for row in summary.leaderboard
    ]
    words = [*map(precision_sentence, summary.lower_precisions), timing_words(summary.timings)]
    text = table(rows, ("place", "network", *precision, f"{statistic}ms", *measured))
    return "\n".join([text, *([""] if any(words) else []), *filter(None, words)])


def frontier_table(summary: Summary) -> str:
    """The winner for each of several budgets, as plain text."""
    statistic = "" if summary.statistic == "p50" else f"{summary.statistic} "
    rows = []
    for each in summary.answers:
        if each.winner is None:
            rows.append((each.budget, "none: given up" if each.given_up else "none yet", "-", "-", "", "-", "-", ""))
            continue
        winner, certificate = each.winner, each.winner.certificate
        rows.append(
            (
                each.budget,
                winner.name,
                percent(winner.miou),
                f"{winner.timing.milliseconds:.2f}",
                certificate.verdict or "",
                f"{certificate.parameters:,}",
                f"{certificate.multiply_adds / 1e9:.2f}",
                each.folder,
            )
        )
    return table(rows, ("budget", "winner", "mIoU", f"{statistic}ms", "verdict", "parameters", "GMAC", "folder"))


def _budget(row: Standing, summary: Summary) -> str:
    """A latency against the budget: inside it, or a multiple of it, with a question mark where that is unsure."""
    if row.timing.within_budget:
        words = f"inside {row.timing.budget}" if row.timing.budget else "inside"
    else:
        words = f"{row.timing.milliseconds / summary.milliseconds_of(row.timing.budget):.2f}x"
    return f"{words}?" if row.timing.verdict == "UNSURE" else words
