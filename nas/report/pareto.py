"""The Pareto picture: mIoU over latency, with the budget as a line, as inline SVG."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.report.axes import (
    CHARACTER_PIXELS,
    Box,
    Scale,
    even_ticks,
    line,
    linear,
    logarithmic,
    percent_axis,
    place_label,
    ratio_ticks,
    text,
)
from nas.report.markup import Html, element, joined
from nas.report.summary import Candidate, Summary, Winner

WIDTH, HEIGHT = 960, 520
FRAME = Box(left=58, top=46, right=WIDTH - 18, bottom=HEIGHT - 88)
RUG = HEIGHT - 66.0  # y of what was timed but not trained
LEGEND = (
    ("winner", "winner", ""),
    ("company", "published, own width", ""),
    ("seed", "published, scaled", ""),
    ("random", "random", ""),
    ("guided", "guided", ""),
    ("guided", "stopped early", "hollow"),
)


@dataclass(frozen=True, kw_only=True)
class _Scales:
    x: Scale
    y: Scale
    milliseconds: tuple[float, float]
    miou: tuple[float, float]


def pareto(summary: Summary) -> Html:
    """Candidates by latency (logarithmic) and mIoU, trained ones in the frame and untrained ones below it."""
    scales = _scales(summary)
    trained = [each for each in summary.measured if each.miou is not None]
    winner = summary.winner if summary.winner and summary.winner.certificate.miou is not None else None
    shown = [each for each in trained if winner is None or winner.pruned or each.key != winner.key]
    untrained = [each for each in summary.measured if each.miou is None]
    parts = [
        element("title", {}, f"mIoU over latency against the budget of {summary.budget}"),
        _axes(summary, scales),
        _front(trained, winner, scales),
        *(_finish_gain(each, scales) for each in trained),
        *(_interval(each, summary, scales) for each in shown),
        *(_untrained(each, scales) for each in untrained),
        *(_point(each, scales) for each in sorted(shown, key=_rank, reverse=True)),
    ]
    if winner is not None:
        parts.append(_star(winner, trained, scales))
    parts += [_labels(shown, untrained, winner, scales), _legend()]
    attributes = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class": "chart", "role": "img", "aria-label": "Pareto picture"}
    return element("svg", attributes, *parts)


def _scales(summary: Summary) -> _Scales:
    latencies = [each.timing.milliseconds for each in summary.measured] + [summary.budget_milliseconds]
    mious = [value for each in summary.measured for value in (each.search_miou, each.finish_miou) if value is not None]
    if summary.winner is not None:
        latencies.append(summary.winner.timing.milliseconds)
        mious += [] if summary.winner.certificate.miou is None else [summary.winner.certificate.miou]
    fastest, slowest = min(latencies) / 1.12, max(latencies) * 1.18
    low, high = (min(mious), max(mious)) if mious else (0.0, 1.0)
    margin = max(0.1 * (high - low), 0.01)
    low, high = max(0.0, low - margin), min(1.0, high + margin)
    return _Scales(
        x=logarithmic(fastest, slowest, FRAME.left, FRAME.right),
        y=linear(low, high, FRAME.bottom, FRAME.top),
        milliseconds=(fastest, slowest),
        miou=(low, high),
    )


def _axes(summary: Summary, scales: _Scales) -> Html:
    budget = scales.x(summary.budget_milliseconds)
    fastest, slowest = scales.milliseconds
    bottom = RUG + 14
    parts = [
        element(
            "rect",
            {"x": budget, "y": FRAME.top, "width": FRAME.right - budget, "height": bottom - FRAME.top, "class": "over"},
        ),
        percent_axis(FRAME, scales.y, *scales.miou),
        line(FRAME.left, FRAME.bottom, FRAME.right, FRAME.bottom, "axis"),
        line(FRAME.left, bottom, FRAME.right, bottom, "axis"),
        text(FRAME.left + 4, RUG + 4, "not trained", "tick"),
    ]
    ticks = ratio_ticks(fastest, slowest, scales.x)
    if len(ticks) < 3:
        ticks = even_ticks(fastest, slowest)
    for tick in ticks:
        parts.append(line(scales.x(tick), bottom, scales.x(tick), bottom + 5, "axis"))
        parts.append(text(scales.x(tick), bottom + 18, f"{tick:g}", "tick", "middle"))
    statistic = "" if summary.statistic == "p50" else f" {summary.statistic}"
    where = f"{summary.target}, {summary.input_size[0]}x{summary.input_size[1]}"
    middle = (FRAME.left + FRAME.right) / 2
    parts.append(text(middle, HEIGHT - 6, f"latency{statistic} (ms) on {where}", "title", "middle"))
    parts.append(text(FRAME.left - 44, FRAME.top - 10, "mIoU (%)", "title"))
    parts.append(line(budget, FRAME.top - 8, budget, bottom, "budget"))
    parts.append(text(budget + 6, FRAME.top + 6, f"budget {summary.budget}", "budget-name"))
    return joined(parts)


def _front(trained: Sequence[Candidate], winner: Winner | None, scales: _Scales) -> Html:
    """Steps through what nothing faster beats."""
    points = [(each.timing.milliseconds, each.miou or 0.0) for each in trained]
    if winner is not None:
        points.append((winner.timing.milliseconds, winner.certificate.miou or 0.0))
    path: list[str] = []
    best = -1.0
    for milliseconds, miou in sorted(points, key=lambda point: (point[0], -point[1])):
        if miou > best:
            x, y = scales.x(milliseconds), scales.y(miou)
            path.append(f"M{x:.2f},{y:.2f}" if not path else f"H{x:.2f}V{y:.2f}")
            best = miou
    if not path:
        return Html()
    return element("path", {"d": "".join(path) + f"H{FRAME.right}", "class": "front"})


def _finish_gain(candidate: Candidate, scales: _Scales) -> Html:
    """From where the search phase ended to where the finish did."""
    if candidate.search_miou is None or candidate.finish_miou is None:
        return Html()
    x = scales.x(candidate.timing.milliseconds)
    before, after = scales.y(candidate.search_miou), scales.y(candidate.finish_miou)
    dot = element("circle", {"cx": x, "cy": before, "r": 2.5, "class": f"fill-{candidate.origin}"})
    return joined((line(x, before, x, after, f"gain stroke-{candidate.origin}"), dot))


def _interval(candidate: Candidate, summary: Summary, scales: _Scales) -> Html:
    """The 95 % interval of the median, where the median is what the axis shows."""
    if summary.statistic != "p50":
        return Html()
    y = scales.y(candidate.miou or 0.0)
    low, high = scales.x(candidate.timing.ci_low_milliseconds), scales.x(candidate.timing.ci_high_milliseconds)
    return line(low, y, high, y, f"interval stroke-{candidate.origin}")


def _point(candidate: Candidate, scales: _Scales) -> Html:
    x, y = scales.x(candidate.timing.milliseconds), scales.y(candidate.miou or 0.0)
    hollow = "hollow" if candidate.status in ("stopped", "failed", "unfinished") else ""
    return _marker(candidate.origin, x, y, hollow, _tooltip(candidate))


def _tooltip(candidate: Candidate) -> str:
    miou = "" if candidate.miou is None else f", {candidate.miou:.1%} mIoU"
    return f"{candidate.name}: {candidate.timing.milliseconds:.2f} ms{miou} ({candidate.status})"


def _marker(kind: str, x: float, y: float, hollow: str = "", tooltip: str = "") -> Html:
    """A shape of its own for every origin, so that colours are not needed to tell them apart."""
    paint = {"class": f"{hollow} fill-{kind} stroke-{kind} marker".strip()}
    inside = element("title", {}, tooltip) if tooltip else Html()
    if kind == "random":
        return element("circle", {"cx": x, "cy": y, "r": 4.5} | paint, inside)
    corners = {
        "seed": ((0, -6), (5.5, 4.5), (-5.5, 4.5)),
        "guided": ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
        "company": ((0, -6.5), (6.5, 0), (0, 6.5), (-6.5, 0)),
        "winner": (
            (0, -11), (2.9, -4), (10.5, -3.4), (4.7, 1.5), (6.5, 8.9), (0, 4.9), (-6.5, 8.9), (-4.7, 1.5),
            (-10.5, -3.4), (-2.9, -4),
        ),
    }[kind]  # fmt: skip
    points = " ".join(f"{x + across:.2f},{y + down:.2f}" for across, down in corners)
    return element("polygon", {"points": points} | paint, inside)


def _untrained(candidate: Candidate, scales: _Scales) -> Html:
    """A tick on the axis for what was measured and left; published networks keep their shape."""
    x = scales.x(candidate.timing.milliseconds)
    if candidate.origin == "company":
        return _marker("company", x, RUG, "hollow", _tooltip(candidate))
    kind = f"rug stroke-{candidate.origin}"
    return element(
        "line", {"x1": x, "y1": RUG - 9, "x2": x, "y2": RUG + 9, "class": kind}, element("title", {}, _tooltip(candidate))
    )


def _star(winner: Winner, trained: Sequence[Candidate], scales: _Scales) -> Html:
    x, y = scales.x(winner.timing.milliseconds), scales.y(winner.certificate.miou or 0.0)
    source = next((each for each in trained if each.key == winner.key), None)
    cut = Html()
    if winner.pruned and source is not None:
        cut = line(scales.x(source.timing.milliseconds), scales.y(source.miou or 0.0), x, y, "cut")
    return joined((cut, _marker("winner", x, y, tooltip=f"{winner.name}: {winner.timing.milliseconds:.2f} ms")))


def _rank(candidate: Candidate) -> tuple[int, float]:
    """Who gets a label first, and is drawn on top."""
    order = {"company": 0, "seed": 1, "guided": 2, "random": 3}
    return order[candidate.origin], -(candidate.miou or 0.0)


def _labels(
    shown: Sequence[Candidate], untrained: Sequence[Candidate], winner: Winner | None, scales: _Scales
) -> Html:
    """Names of the winner, the published networks and the best of the others, where there is room for them."""
    points = {each.key: (scales.x(each.timing.milliseconds), scales.y(each.miou or 0.0)) for each in shown}
    points |= {each.key: (scales.x(each.timing.milliseconds), RUG) for each in untrained}
    named = [(each.name, points[each.key], "name") for each in _worth_naming(shown, untrained)]
    taken = [_around(point, 7) for point in points.values()]
    if winner is not None:
        star = (scales.x(winner.timing.milliseconds), scales.y(winner.certificate.miou or 0.0))
        taken.append(_around(star, 11))
        named.insert(0, (winner.name, star, "name winner-name"))
    bounds = Box(left=FRAME.left + 2, top=FRAME.top + 12, right=FRAME.right, bottom=RUG + 12)
    taken.append(Box(left=FRAME.left, top=RUG - 8, right=FRAME.left + 80, bottom=RUG + 8))
    parts = []
    for name, point, kind in named:
        words = name if len(name) <= 32 else name[:31] + "…"
        found = place_label(words, point, taken, bounds)
        if found is not None:
            box, anchor = found
            taken.append(box)
            x = {"start": box.left, "end": box.right, "middle": (box.left + box.right) / 2}[anchor]
            parts.append(text(x, box.bottom - 3, words, kind, anchor))
    return joined(parts)


def _worth_naming(shown: Sequence[Candidate], untrained: Sequence[Candidate]) -> Iterable[Candidate]:
    for origin, most in (("company", 12), ("seed", 12), ("random", 1), ("guided", 1)):
        finished = [each for each in shown if each.origin == origin]
        yield from sorted(finished, key=_rank)[:most]
    yield from (each for each in untrained if each.origin == "company")


def _around(point: tuple[float, float], pixels: float) -> Box:
    x, y = point
    return Box(left=x - pixels, top=y - pixels, right=x + pixels, bottom=y + pixels)


def _legend() -> Html:
    parts, x = [], FRAME.left + 84.0
    for kind, words, hollow in LEGEND:
        parts += [_marker(kind, x, 14, hollow), text(x + 13, 18, words, "tick")]
        x += 13 + len(words) * CHARACTER_PIXELS + 24
    parts += [line(x, 7, x, 21, "rug stroke-random"), text(x + 8, 18, "not trained", "tick")]
    return joined(parts)
