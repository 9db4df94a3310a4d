"""The Pareto picture: mIoU over latency, with each budget as a line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.path import Path
from matplotlib.ticker import NullLocator

from nas.report.drawing import DISC, draw_leader, draw_name, draw_percent_axis, draw_words, framed, look, ticks_within
from nas.report.labels import ChartPoint, place_label, shortened
from nas.report.palette import LIGHT
from nas.report.standings import TrialSummary
from nas.report.summary import Summary
from nas.report.svg import as_svg, css, hover
from nas.report.winners import LatencySummary, Winner
from nas.runs.trial import Origin

WIDTH, HEIGHT = 1000, 500
MARGINS = (52, 42, 14, 34)  # left, bottom, right, top
STRIP = 0.09  # share of the frame's height at the bottom, for candidates that were timed but not trained
LONGEST_NAME = 32
LEADER_PIXELS = 11.0

FRONTIERS: Mapping[str, Any] = {"fp32": "solid", "fp16": (0, (6, 2, 1, 2)), "bf16": (0, (6, 3)), "int8": (0, (1, 2))}
"""matplotlib's line style for the frontier of each precision."""

CLOSE = (0.9, 1.02)  # multiples of the budget between which candidates that were made to fill it crowd
CROWD = 4
CLOSE_SHARE = 0.4  # share of the picture's width from which on that range needs no close-up


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Appearance of candidates of an origin: matplotlib's marker, its size in pixels, the same shape as a character."""

    marker: str | Path
    size: float
    glyph: str
    words: str
    most_names: int


# Each has a shape of its own, so that colours are not needed. The first ones are named first and drawn on top.
KINDS: Mapping[Origin, Mark] = {
    "company": Mark(marker="D", size=9, glyph="◆", words="published", most_names=12),
    "pruned": Mark(marker="v", size=10.5, glyph="▼", words="pruned", most_names=12),
    "seed": Mark(marker="^", size=10.5, glyph="▲", words="published, scaled", most_names=12),
    "guided": Mark(marker="s", size=9, glyph="■", words="guided", most_names=1),
    "random": Mark(marker=DISC, size=9, glyph="●", words="random", most_names=1),
}
LEGEND = (  # glyph, colour, words
    ("★", "winner", "winner"),
    *((kind.glyph, origin, kind.words) for origin, kind in KINDS.items()),
    ("□", "guided", "paused"),
    ("|", "random", "not trained"),
)


@dataclass(frozen=True, kw_only=True)
class _View:
    """The part of a run that one picture shows: a range of milliseconds, with names for some origins."""

    summary: Summary
    milliseconds: tuple[float, float]
    miou: tuple[float, float]
    named: tuple[Origin, ...]

    def holds(self, timing: LatencySummary) -> bool:
        """Whether a latency is in the picture."""
        return self.milliseconds[0] <= timing.milliseconds <= self.milliseconds[1]

    @property
    def winners(self) -> list[Winner]:
        """The winners that are in the picture."""
        return [winner for winner in self.summary.winners if self.holds(winner.timing)]

    @property
    def candidates(self) -> list[TrialSummary]:
        """The candidates that are in the picture."""
        return [each for each in self.summary.measured if self.holds(each.timing)]

    @property
    def trained(self) -> list[TrialSummary]:
        """The candidates in the picture that have an mIoU."""
        return [each for each in self.candidates if each.miou is not None]

    @property
    def marked(self) -> list[TrialSummary]:
        """Candidates drawn with their own marker, the topmost last. Winners have a star instead, unless pruned."""
        themselves = {winner.key for winner in self.winners if not winner.pruned}
        shown = [each for each in self.candidates if each.miou is None or each.key not in themselves]
        return sorted(shown, key=_rank, reverse=True)

    def place(self, candidate: TrialSummary) -> ChartPoint:
        """Milliseconds and mIoU, or the middle of the bottom strip for a candidate without mIoU."""
        low, high = self.miou
        miou = low - STRIP / 2 * (high - low) if candidate.miou is None else candidate.miou
        return candidate.timing.milliseconds, miou


def pareto(summary: Summary) -> tuple[Markup, ...]:
    """Charts of candidates by latency (logarithmic) and mIoU, with untrained ones in a strip at the bottom.

    Where many candidates crowd just below the budget, a second chart shows them close up.
    """
    fastest, slowest = _latency_range(summary)
    budgets = summary.budgets
    near, far = (share * summary.budget_milliseconds for share in CLOSE)
    crowd = sum(near <= each.timing.milliseconds <= far for each in summary.measured)
    statistic = "" if summary.statistic == "p50" else f" {summary.statistic}"
    size = f"{summary.input_size[0]}x{summary.input_size[1]}"
    below = f"latency{statistic} (ms) on {summary.target}, {size}"
    miou = _miou_range(summary)
    first, *others = KINDS
    if len(budgets) > 1 or crowd < CROWD or math.log(far / near) >= CLOSE_SHARE * math.log(slowest / fastest):
        whole = _View(summary=summary, milliseconds=(fastest, slowest), miou=miou, named=(first, *others))
        return (_drawn(whole, WIDTH, below),)
    whole = _View(summary=summary, milliseconds=(fastest, slowest), miou=miou, named=(first,))
    close = _View(summary=summary, milliseconds=(near, far), miou=miou, named=tuple(others))
    return (
        _drawn(whole, WIDTH // 2, below),
        _drawn(close, WIDTH // 2, f"latency{statistic} (ms), close to the budget"),
    )


def _latency_range(summary: Summary) -> tuple[float, float]:
    latencies = [each.timing.milliseconds for each in summary.measured]
    latencies += [milliseconds for _, milliseconds in summary.budgets]
    latencies += [winner.timing.milliseconds for winner in summary.winners]
    return min(latencies) / 1.15, max(latencies) * 1.25


def _miou_range(summary: Summary) -> tuple[float, float]:
    mious = [value for each in summary.measured for value in (each.search_miou, each.finish_miou) if value is not None]
    mious += [winner.miou for winner in summary.winners]
    low, high = (min(mious), max(mious)) if mious else (0.0, 1.0)
    margin = max(0.1 * (high - low), 0.01)
    return max(0.0, low - margin), min(1.0, high + margin)


def _rank(candidate: TrialSummary) -> tuple[int, float]:
    """Sort key: the first candidates are named first and drawn on top."""
    return list(KINDS).index(candidate.origin), -(candidate.miou or 0.0)


def _drawn(view: _View, width: int, below: str) -> Markup:
    with look():
        figure, axes = framed(width, HEIGHT, *MARGINS)
        _draw_axes(axes, view, below)
        _draw_budgets(axes, view)
        _draw_frontiers(axes, view)
        _draw_cuts(axes, view)
        _draw_gains(axes, view)
        _draw_intervals(axes, view)
        for each in view.marked:
            _draw_candidate(axes, view, each)
        for winner in view.winners:
            _draw_star(axes, winner)
        _draw_names(axes, view)
        words = "budget" if len(view.summary.budgets) == 1 else "budgets"
        return as_svg(figure, "Pareto picture", f"mIoU over latency against the {words} of {view.summary.budget}")


def _draw_axes(axes: Axes, view: _View, below: str) -> None:
    low, high = view.miou
    axes.set_xscale("log")
    axes.set_xlim(view.milliseconds)
    axes.set_ylim(low - STRIP * (high - low), high)
    ticks = round_values(*view.milliseconds, most=round(axes.bbox.width / 44))
    if len(ticks) < 4:
        ticks = ticks_within(*view.milliseconds)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(below, gid=css("heading"))
    draw_percent_axis(axes, low, high)
    axes.axhline(low, color=LIGHT["soft"], linewidth=0.8)
    draw_words(axes, "not", (0, 0), (-4, 18), align="right")
    draw_words(axes, "trained", (0, 0), (-4, 5), align="right")


def round_values(low: float, high: float, most: int) -> list[float]:
    """Round values within a range, whose ratio is at least the range's to the power 1 / `most`; rounder ones first.

    matplotlib's ticks for a logarithmic axis are whole decades, and a range of latencies rarely contains two.
    """
    apart = math.log(high / low) / most
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    kept: list[float] = []
    for mantissas in ((1.0,), (5.0, 2.0), (3.0, 7.0), (1.5, 4.0), (6.0, 8.0), (2.5, 9.0), (1.2,)):
        for value in (mantissa * 10.0**power for power in powers for mantissa in mantissas):
            if low <= value <= high and all(abs(math.log(value / other)) >= apart for other in kept):
                kept.append(value)
    return sorted(kept)


def _draw_budgets(axes: Axes, view: _View) -> None:
    """Draw a line for each budget, and shade the range over the largest."""
    fastest, slowest = view.milliseconds
    *_, (_, largest) = budgets = view.summary.budgets
    axes.axvspan(largest, slowest, color=LIGHT["bad"], alpha=0.06, linewidth=0, zorder=0)
    for name, budget in budgets:
        axes.axvline(budget, ymax=1.03, color=LIGHT["bad"], linestyle=(0, (5, 3)))
        words, place = (f"budget {name}" if len(budgets) == 1 else name), (budget, 1)
        if len(budgets) > 1 or math.log(slowest / budget) > 0.25 * math.log(slowest / fastest):
            draw_words(axes, words, place, (6, 4), across="data", colour="bad", kind="budget")
        else:
            draw_words(axes, words, place, (-6, 4), across="data", align="right", colour="bad", kind="budget")


def _draw_frontiers(axes: Axes, view: _View) -> None:
    """Draw the Pareto frontier as steps, one for each precision."""
    points: dict[str, list[ChartPoint]] = {precision: [] for precision in view.summary.precisions}
    for each in view.trained:
        points[each.timing.precision].append(view.place(each))
    for winner in view.winners:
        timing = winner.timing
        points.setdefault(timing.precision, []).append((timing.milliseconds, winner.miou))
    for precision, found in points.items():
        steps: list[ChartPoint] = []
        for milliseconds, miou in sorted(found, key=lambda point: (point[0], -point[1])):
            if not steps or miou > steps[-1][1]:
                steps.append((milliseconds, miou))
        if steps:
            x, y = zip(*steps, (view.milliseconds[1], steps[-1][1]), strict=True)
            axes.step(
                x, y, where="post", color=LIGHT["soft"], alpha=0.45, linestyle=FRONTIERS[precision], gid=css("frontier")
            )
            if len(points) > 1:
                draw_words(axes, precision, (1, steps[-1][1]), (-4, 3), up="data", align="right")


def _draw_cuts(axes: Axes, view: _View) -> None:
    """Draw lines from networks to the pruned networks made from them, where both are in the picture."""
    published = {each.name: view.place(each) for each in view.trained if each.origin == "company"}
    pruned = [each for each in view.trained if each.origin == "pruned" and each.parent in published]
    cuts = [(published[each.parent], view.place(each)) for each in pruned]
    for winner in view.winners:
        star = winner.timing.milliseconds, winner.miou
        cuts += [(view.place(each), star) for each in view.trained if winner.pruned and each.key == winner.key]
    for ends in cuts:
        x, y = zip(*ends, strict=True)
        axes.plot(x, y, color=LIGHT["winner"], linestyle=(0, (2, 3)), gid=css("cut"))


def _draw_gains(axes: Axes, view: _View) -> None:
    """Draw lines from the mIoU after the search phase (a dot) to that after the finish, or to a winner's star."""
    stars = {winner.key: winner for winner in view.winners if not winner.pruned}
    for each in view.trained:
        if each.search_miou is None or each.finish_miou is None:
            continue
        x, after = view.place(each)
        if (winner := stars.get(each.key)) is not None:
            x, after = winner.timing.milliseconds, winner.miou
        (line,) = axes.plot((x, x), (each.search_miou, after), color=LIGHT[each.origin], linewidth=1.2, alpha=0.7)
        line.set(marker=DISC, markevery=[0], gid=css("gain"))


def _draw_intervals(axes: Axes, view: _View) -> None:
    """Draw the 95 % intervals of the medians, cut to the picture, if the axis shows medians."""
    if view.summary.statistic != "p50":
        return
    fastest, slowest = view.milliseconds
    for each in view.marked:
        if each.miou is not None:
            ends = max(fastest, each.timing.ci_low_milliseconds), min(slowest, each.timing.ci_high_milliseconds)
            axes.plot(ends, (each.miou, each.miou), color=LIGHT[each.origin], gid=css("interval"))


def _draw_candidate(axes: Axes, view: _View, candidate: TrialSummary) -> None:
    """Draw a candidate's marker, hollow if its training is not complete; a stroke if it was only timed."""
    miou = "" if candidate.miou is None else f", {candidate.miou:.1%} mIoU"
    precision = f" in {candidate.timing.precision}" if len(view.summary.precisions) > 1 else ""
    words = f"{candidate.name}: {candidate.timing.milliseconds:.2f} ms{precision}{miou} ({candidate.status})"
    place, kind = view.place(candidate), KINDS[candidate.origin]
    if candidate.miou is None and candidate.origin != "company":
        _draw_marker(axes, place, "|", 18, candidate.origin, words, hollow=True)
    else:
        hollow = candidate.miou is None or candidate.status in ("paused", "stopped", "failed", "unfinished")
        _draw_marker(axes, place, kind.marker, kind.size, candidate.origin, words, hollow=hollow)


def _draw_star(axes: Axes, winner: Winner) -> None:
    """Draw the star of a winner, at the figures of its certificate."""
    place, words = (winner.timing.milliseconds, winner.miou), f"{winner.name}: {winner.timing.milliseconds:.2f} ms"
    _draw_marker(axes, place, "*", 22, "winner", words, hollow=False)


def _draw_marker(
    axes: Axes, place: ChartPoint, marker: str | Path, pixels: float, colour: str, words: str, *, hollow: bool
) -> None:
    inside, edge, width = ("ground", colour, 1.6) if hollow else (colour, "ground", 1.0)
    axes.plot(
        *place,
        linestyle="none",
        marker=marker,
        markersize=pixels,
        markerfacecolor=LIGHT[inside],
        markeredgecolor=LIGHT[edge],
        markeredgewidth=width,
        gid=hover(words),
    )


def _draw_names(axes: Axes, view: _View) -> None:
    """Name the winners, the published networks and the best of the others, where there is room.

    Names cover no marker, interval, budget line or other name, and a gain's line only where there is no other room.
    """
    names = [(each.name, view.place(each), False) for each in _worth_naming(view)]
    stars = [(each.name, (each.timing.milliseconds, each.miou), True) for each in view.winners]
    names = [*stars, *names]
    gains = [each.get_window_extent() for each in axes.lines if each.get_gid() == css("gain")]
    free_to_cover = (css("gain"), css("frontier"), css("cut"))
    taken = [each.get_window_extent().padded(1.5) for each in axes.lines if each.get_gid() not in free_to_cover]
    bounds = axes.bbox.padded(-2)
    for name, place, bold in names:
        x, y = axes.transData.transform(place)
        words = shortened(name, LONGEST_NAME)
        box = place_label(words, (x, y), taken + gains, bounds, bold=bold)
        if box is None:
            box = place_label(words, (x, y), taken, bounds, bold=bold)
        if box is None:
            continue
        taken.append(box)
        near_x, near_y = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
        if math.hypot(x - near_x, y - near_y) > LEADER_PIXELS:
            draw_leader(axes, (x, near_x), (y, near_y))
        draw_name(axes, words, (box.x0 + box.x1) / 2, box.y0 + 3, bold=bold, align="center")


def _worth_naming(view: _View) -> Iterable[TrialSummary]:
    for origin in view.named:
        alike = [each for each in reversed(view.marked) if each.origin == origin]
        yield from [each for each in alike if each.miou is not None][: KINDS[origin].most_names]
        if origin == "company":
            yield from (each for each in alike if each.miou is None)
