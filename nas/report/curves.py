"""Learning curves: mIoU after every epoch of every trained candidate, as inline SVG."""

from __future__ import annotations

from nas.report.axes import LINE_PIXELS, Box, Scale, even_ticks, linear, percent_axis, spread, text
from nas.report.markup import Html, element, joined
from nas.report.summary import Candidate, Summary

WIDTH, HEIGHT = 960, 300
FRAME = Box(left=58, top=26, right=WIDTH - 190, bottom=HEIGHT - 40)
MOST_NAMES = 14


def curves(summary: Summary) -> Html:
    """One line per candidate; a dot where its finish phase begins, and a name where it ends."""
    trained = [each for each in summary.measured if each.epochs]
    if not trained:
        return element("p", {"class": "muted"}, "No epoch has been trained yet.")
    values = [value for each in trained for value in (*each.search, *each.finish)]
    longest = max(2, max(each.epochs for each in trained))
    low, high = max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)
    x = linear(1, longest, FRAME.left + 8, FRAME.right)
    y = linear(low, high, FRAME.bottom, FRAME.top)
    parts = [element("title", {}, "mIoU after every epoch"), percent_axis(FRAME, y, low, high)]
    for tick in even_ticks(1, longest, 10):
        if tick == round(tick):
            parts.append(text(x(tick), FRAME.bottom + 18, f"{tick:g}", "tick", "middle"))
    parts.append(text((FRAME.left + FRAME.right) / 2, HEIGHT - 4, "epoch", "title", "middle"))
    parts.append(text(FRAME.left - 44, FRAME.top - 10, "mIoU (%)", "title"))
    winner = None if summary.winner is None else summary.winner.key
    for each in sorted(trained, key=lambda each: (each.key == winner, len(each.finish))):
        parts.append(_curve(each, x, y, each.key == winner))
    parts.append(_names(trained, x, y, winner))
    attributes = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class": "chart", "role": "img", "aria-label": "Learning curves"}
    return element("svg", attributes, *parts)


def _curve(candidate: Candidate, x: Scale, y: Scale, is_winner: bool) -> Html:
    values = (*candidate.search, *candidate.finish)
    points = [(x(epoch), y(value)) for epoch, value in enumerate(values, 1)]
    colour = "winner" if is_winner else candidate.origin
    weight = "bold" if candidate.finish or is_winner else "thin"
    name = element("title", {}, candidate.name)
    path = "M" + "L".join(f"{across:.2f},{down:.2f}" for across, down in points)
    parts = [element("path", {"d": path, "class": f"curve {weight} stroke-{colour}"}, name)]
    marks = [points[-1]] + ([points[len(candidate.search)]] if candidate.search and candidate.finish else [])
    for across, down in marks:
        parts.append(element("circle", {"cx": across, "cy": down, "r": 2.5, "class": f"fill-{colour}"}))
    return joined(parts)


def _names(trained: list[Candidate], x: Scale, y: Scale, winner: str | None) -> Html:
    """Names of those who trained longest, at the right edge, best first; a thin line leads to the curve's end."""
    longest = max(each.epochs for each in trained)
    order = sorted(trained, key=lambda each: (each.key != winner, -(each.miou or 0.0)))
    named = [each for each in order if each.epochs == longest or each.key == winner][:MOST_NAMES]
    ends = [y(each.miou or 0.0) for each in named]
    heights = spread(ends, LINE_PIXELS, FRAME.top, FRAME.bottom)
    parts = []
    for each, end, height in zip(named, ends, heights, strict=True):
        words = each.name if len(each.name) <= 24 else each.name[:23] + "…"
        kind = "name winner-name" if each.key == winner else "name"
        start = x(each.epochs) + 5
        path = f"M{start:.2f},{end:.2f}L{FRAME.right + 8:.2f},{end:.2f}L{FRAME.right + 20:.2f},{height:.2f}"
        parts += [
            element("path", {"d": path, "class": "leader"}),
            text(FRAME.right + 24, height + 4, words, kind),
        ]
    return joined(parts)
