"""Learning curves: mIoU after the scored epochs of every trained candidate."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from nas.report.drawing import DISC, draw_leader, draw_name, draw_percent_axis, framed, look
from nas.report.labels import LINE_PIXELS, shortened, spread
from nas.report.palette import LIGHT
from nas.report.standings import TrialSummary
from nas.report.summary import Summary
from nas.report.svg import as_svg, css, hover

WIDTH, HEIGHT = 1000, 310
MARGINS = (52, 42, 190, 26)  # left, bottom, right (where names are) and top
MOST_NAMES = 14
LONGEST_NAME = 24


def curves(summary: Summary) -> Markup | None:
    """A chart with a line per candidate and a name at its end. Dots mark where its finish begins, and the scores of a
    training that was not scored after every epoch. None without scores.
    """
    trained = [each for each in summary.measured if each.miou is not None]
    if not trained:
        return None
    values = [miou for each in trained for _, miou in each.curve]
    winners = {winner.key for winner in summary.winners}
    with look():
        figure, axes = framed(WIDTH, HEIGHT, *MARGINS)
        longest = max(2, max(each.epochs for each in trained))
        axes.set_xlim(1 - 0.01 * (longest - 1), longest)
        low, high = max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)
        axes.set_ylim(low, high)
        axes.set_xlabel("epoch", gid=css("heading"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=11, steps=[1, 2, 5, 10], integer=True))
        axes.tick_params(axis="x", length=0)
        axes.spines.bottom.set_visible(False)
        draw_percent_axis(axes, low, high)
        for each in sorted(trained, key=lambda each: (each.key in winners, len(each.finish))):
            _draw_curve(axes, each, each.key in winners)
        _draw_names(axes, trained, winners)
        return as_svg(figure, "Learning curves", "mIoU after the epochs that were scored")


def _draw_curve(axes: Axes, candidate: TrialSummary, is_winner: bool) -> None:
    # Epochs without an mIoU of the network have no points, but count on the axis.
    epochs, mious = zip(*candidate.curve, strict=True)
    finish_begins = len(candidate.search) + 1 if candidate.search and candidate.finish else 0
    has_gaps = len(epochs) <= epochs[-1] - epochs[0]
    marks = [place for place, epoch in enumerate(epochs) if has_gaps or epoch in (finish_begins, epochs[-1])]
    bold = bool(candidate.finish) or is_winner
    axes.plot(
        epochs,
        mious,
        color=LIGHT["winner" if is_winner else candidate.origin],
        linewidth=2.2 if bold else 1.1,
        alpha=None if bold else 0.7,
        marker=DISC,
        markevery=marks,
        gid=hover(candidate.name),
    )


def _draw_names(axes: Axes, trained: Sequence[TrialSummary], winners: Collection[str | None]) -> None:
    """Name the networks that trained longest at the right edge, best first; thin lines lead to the ends of curves."""
    longest = max(each.epochs for each in trained)
    order = sorted(trained, key=lambda each: (each.key not in winners, -(each.miou or 0.0)))
    named = [each for each in order if each.epochs == longest or each.key in winners][:MOST_NAMES]
    ends = [axes.transData.transform(each.curve[-1]) for each in named]
    frame = axes.bbox
    heights = spread([y for _, y in ends], LINE_PIXELS, frame.y0, frame.y1)
    for each, (x, y), height in zip(named, ends, heights, strict=True):
        draw_leader(axes, (x + 5, frame.x1 + 8, frame.x1 + 20), (y, y, height))
        words, bold = shortened(each.name, LONGEST_NAME), each.key in winners
        draw_name(axes, words, frame.x1 + 24, height - 4, bold=bold, align="left")
