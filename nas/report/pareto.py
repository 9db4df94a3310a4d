"""The Pareto picture: mIoU over latency, with the budget as a line, as inline SVG."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nas.report.axes import (
    CHARACTER_PIXELS,
    Box,
    Scale,
    even_ticks,
    label,
    line,
    linear,
    logarithmic,
    percent_axis,
    place_label,
    ratio_ticks,
    text,
)
from nas.report.markup import Html, element, joined
from nas.report.summary import Candidate, Summary, Timing, Winner
from nas.runs.trial import Origin

WIDTH, HEIGHT = 960, 520
WHOLE = Box(left=58, top=46, right=WIDTH - 12, bottom=HEIGHT - 88)
LEFT = Box(left=58, top=46, right=500, bottom=HEIGHT - 88)
RIGHT = Box(left=516, top=46, right=WIDTH - 12, bottom=HEIGHT - 88)
RUG = HEIGHT - 66.0  # y of what was timed but not trained
BOTTOM = RUG + 14

LONGEST_NAME = 32

CLOSE = (0.9, 1.02)  # times the budget: where candidates that were made to fill it crowd
CROWD = 4
CLOSE_SHARE = 0.4  # of the picture's width; a crowd that has as much room already needs no close-up

LEGEND = (
    ("winner", "winner", ""),
    ("company", "published", ""),
    ("seed", "published, scaled", ""),
    ("pruned", "pruned", ""),
    ("random", "random", ""),
    ("guided", "guided", ""),
    ("guided", "stopped early", "hollow"),
)


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """A frame with its scales, what lies in its range of milliseconds, and whose names are written."""

    frame: Box
    x: Scale
    y: Scale
    milliseconds: tuple[float, float]
    miou: tuple[float, float]
    candidates: tuple[Candidate, ...]
    winner: Winner | None
    named: tuple[tuple[Origin, int], ...]


def pareto(summary: Summary) -> Html:
    """Candidates by latency (logarithmic) and mIoU, trained ones in the frame and untrained ones below it.

    Where many crowd below the budget, a second panel shows them close up.
    """
    low, high = _miou_range(summary)
    fastest, slowest = _latency_range(summary)
    near, far = (share * summary.budget_milliseconds for share in CLOSE)
    crowd = sum(near <= each.timing.milliseconds <= far for each in summary.measured)
    others: tuple[tuple[Origin, int], ...] = (("seed", 12), ("pruned", 12), ("guided", 1), ("random", 1))
    if crowd < CROWD or math.log(far / near) >= CLOSE_SHARE * math.log(slowest / fastest):
        panels = [_panel(summary, WHOLE, (fastest, slowest), (low, high), (("company", 12), *others))]
    else:
        panels = [
            _panel(summary, LEFT, (fastest, slowest), (low, high), (("company", 12),)),
            _panel(summary, RIGHT, (near, far), (low, high), others),
        ]
    where = f"{summary.target}, {summary.input_size[0]}x{summary.input_size[1]}"
    statistic = "" if summary.statistic == "p50" else f" {summary.statistic}"
    parts = [
        element("title", {}, f"mIoU over latency against the budget of {summary.budget}"),
        _legend(),
        text(WHOLE.left - 44, WHOLE.top - 10, "mIoU (%)", "title"),
        text((WHOLE.left + WHOLE.right) / 2, HEIGHT - 6, f"latency{statistic} (ms) on {where}", "title", "middle"),
        *(_drawn(panel, summary) for panel in panels),
    ]
    if len(panels) > 1:
        parts.append(text(RIGHT.right, RIGHT.top - 10, "close to the budget", "title", "end"))
    attributes = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "class": "chart", "role": "img", "aria-label": "Pareto picture"}
    return element("svg", attributes, *parts)


def _latency_range(summary: Summary) -> tuple[float, float]:
    latencies = [each.timing.milliseconds for each in summary.measured] + [summary.budget_milliseconds]
    if summary.winner is not None:
        latencies.append(summary.winner.timing.milliseconds)
    return min(latencies) / 1.15, max(latencies) * 1.25


def _miou_range(summary: Summary) -> tuple[float, float]:
    mious = [value for each in summary.measured for value in (each.search_miou, each.finish_miou) if value is not None]
    if summary.winner is not None:
        mious.append(summary.winner.miou)
    low, high = (min(mious), max(mious)) if mious else (0.0, 1.0)
    margin = max(0.1 * (high - low), 0.01)
    return max(0.0, low - margin), min(1.0, high + margin)


def _panel(
    summary: Summary,
    frame: Box,
    milliseconds: tuple[float, float],
    miou: tuple[float, float],
    named: tuple[tuple[Origin, int], ...],
) -> _Panel:
    def inside(timing: Timing) -> bool:
        return milliseconds[0] <= timing.milliseconds <= milliseconds[1]

    winner = summary.winner
    return _Panel(
        frame=frame,
        x=logarithmic(*milliseconds, frame.left, frame.right),
        y=linear(*miou, frame.bottom, frame.top),
        milliseconds=milliseconds,
        miou=miou,
        candidates=tuple(each for each in summary.measured if inside(each.timing)),
        winner=winner if winner is not None and inside(winner.timing) else None,
        named=named,
    )


def _drawn(panel: _Panel, summary: Summary) -> Html:
    trained = [each for each in panel.candidates if each.miou is not None]
    # The star stands for the winner's candidate, unless it was pruned into another network.
    itself = panel.winner.key if panel.winner is not None and not panel.winner.pruned else None
    shown = [each for each in trained if each.key != itself]
    untrained = [each for each in panel.candidates if each.miou is None]
    parts = [
        _axes(panel, summary),
        _front(trained, panel),
        *(_cut(each, panel) for each in trained if each.origin == "pruned"),
        *(_finish_gain(each, panel) for each in shown),
        *(_interval(each, panel, summary) for each in shown),
        *(_untrained(each, panel) for each in untrained),
        *(_point(each, panel) for each in sorted(shown, key=_rank, reverse=True)),
    ]
    if panel.winner is not None:
        parts.append(_star(panel.winner, trained, panel))
    parts.append(_labels(shown, untrained, panel, summary))
    return joined(parts)


def _axes(panel: _Panel, summary: Summary) -> Html:
    frame = panel.frame
    budget = panel.x(summary.budget_milliseconds)
    height = BOTTOM - frame.top
    over = {"x": budget, "y": frame.top, "width": frame.right - budget, "height": height, "class": "over"}
    leftmost = frame.left == WHOLE.left
    parts = [
        element("rect", over),
        percent_axis(frame, panel.y, *panel.miou, written=leftmost),
        line(frame.left, frame.bottom, frame.right, frame.bottom, "axis"),
        line(frame.left, BOTTOM, frame.right, BOTTOM, "axis"),
    ]
    if leftmost:
        parts.append(text(frame.left + 4, RUG + 4, "not trained", "tick"))
    fastest, slowest = panel.milliseconds
    ticks = ratio_ticks(fastest, slowest, panel.x)
    if len(ticks) < 4:
        ticks = even_ticks(fastest, slowest)
    for tick in ticks:
        parts.append(line(panel.x(tick), BOTTOM, panel.x(tick), BOTTOM + 5, "axis"))
        parts.append(text(panel.x(tick), BOTTOM + 18, f"{tick:g}", "tick", "middle"))
    parts.append(line(budget, frame.top - 8, budget, BOTTOM, "budget"))
    if leftmost:
        parts.append(text(budget + 6, frame.top - 2, f"budget {summary.budget}", "budget-name"))
    return joined(parts)


def _front(trained: Sequence[Candidate], panel: _Panel) -> Html:
    """Steps through what nothing faster beats."""
    points = [(each.timing.milliseconds, each.miou or 0.0) for each in trained]
    if panel.winner is not None:
        points.append((panel.winner.timing.milliseconds, panel.winner.miou))
    path: list[str] = []
    best = -1.0
    for milliseconds, miou in sorted(points, key=lambda point: (point[0], -point[1])):
        if miou > best:
            x, y = panel.x(milliseconds), panel.y(miou)
            path.append(f"H{x:.2f}V{y:.2f}" if path else f"M{x:.2f},{y:.2f}")
            best = miou
    if not path:
        return Html()
    return element("path", {"d": "".join(path) + f"H{panel.frame.right}", "class": "front"})


def _finish_gain(candidate: Candidate, panel: _Panel) -> Html:
    """From where the search phase ended to where the finish did."""
    if candidate.search_miou is None or candidate.finish_miou is None:
        return Html()
    return _gain(panel.x(candidate.timing.milliseconds), candidate.search_miou, candidate.finish_miou, candidate, panel)


def _cut(candidate: Candidate, panel: _Panel) -> Html:
    """From the published network to what was cut out of it, where both are in the panel."""
    for each in panel.candidates:
        if each.origin == "company" and each.name == candidate.parent and each.miou is not None:
            return line(*_place(each, panel), *_place(candidate, panel), "cut")
    return Html()


def _gain(x: float, before: float, after: float, candidate: Candidate, panel: _Panel) -> Html:
    dot = element("circle", {"cx": x, "cy": panel.y(before), "r": 2.5, "class": f"fill-{candidate.origin}"})
    return joined((line(x, panel.y(before), x, panel.y(after), f"gain stroke-{candidate.origin}"), dot))


def _interval(candidate: Candidate, panel: _Panel, summary: Summary) -> Html:
    """The 95 % interval of the median, where the median is what the axis shows."""
    if summary.statistic != "p50":
        return Html()
    y = panel.y(candidate.miou or 0.0)
    low, high = panel.x(candidate.timing.ci_low_milliseconds), panel.x(candidate.timing.ci_high_milliseconds)
    return line(low, y, high, y, f"interval stroke-{candidate.origin}")


def _point(candidate: Candidate, panel: _Panel) -> Html:
    x, y = _place(candidate, panel)
    hollow = "hollow" if candidate.status in ("stopped", "failed", "unfinished") else ""
    return _marker(candidate.origin, x, y, hollow, _tooltip(candidate))


def _tooltip(candidate: Candidate) -> str:
    miou = "" if candidate.miou is None else f", {candidate.miou:.1%} mIoU"
    return f"{candidate.name}: {candidate.timing.milliseconds:.2f} ms{miou} ({candidate.status})"


def _marker(kind: str, x: float, y: float, hollow: str = "", tooltip: str = "") -> Html:
    """A shape of its own for every origin, so that colours are not needed to tell them apart."""
    paint: dict[str, object] = {"class": f"{hollow} fill-{kind} stroke-{kind} marker".strip()}
    inside = element("title", {}, tooltip) if tooltip else Html()
    if kind == "random":
        return element("circle", {"cx": x, "cy": y, "r": 4.5} | paint, inside)
    corners = {
        "seed": ((0, -6), (5.5, 4.5), (-5.5, 4.5)),
        "pruned": ((0, 6), (5.5, -4.5), (-5.5, -4.5)),
        "guided": ((-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)),
        "company": ((0, -6.5), (6.5, 0), (0, 6.5), (-6.5, 0)),
        "winner": (
            (0, -11), (2.9, -4), (10.5, -3.4), (4.7, 1.5), (6.5, 8.9), (0, 4.9), (-6.5, 8.9), (-4.7, 1.5),
            (-10.5, -3.4), (-2.9, -4),
        ),
    }[kind]  # fmt: skip
    points = " ".join(f"{x + across:.2f},{y + down:.2f}" for across, down in corners)
    return element("polygon", {"points": points} | paint, inside)


def _untrained(candidate: Candidate, panel: _Panel) -> Html:
    """A tick on the axis for what was measured and left; published networks keep their shape."""
    x = panel.x(candidate.timing.milliseconds)
    if candidate.origin == "company":
        return _marker("company", x, RUG, "hollow", _tooltip(candidate))
    kind = f"rug stroke-{candidate.origin}"
    return element(
        "line",
        {"x1": x, "y1": RUG - 9, "x2": x, "y2": RUG + 9, "class": kind},
        element("title", {}, _tooltip(candidate)),
    )


def _star(winner: Winner, trained: Sequence[Candidate], panel: _Panel) -> Html:
    """The finished artefact, and what joins it to the candidate that it was cut from or that was trained on."""
    x, y = panel.x(winner.timing.milliseconds), panel.y(winner.miou)
    source = next((each for each in trained if each.key == winner.key), None)
    joint = Html()
    if source is not None and winner.pruned:
        joint = line(*_place(source, panel), x, y, "cut")
    elif source is not None and source.search_miou is not None and source.finish:
        joint = _gain(x, source.search_miou, winner.miou, source, panel)
    return joined((joint, _marker("winner", x, y, tooltip=f"{winner.name}: {winner.timing.milliseconds:.2f} ms")))


def _rank(candidate: Candidate) -> tuple[int, float]:
    """Who gets a label first, and is drawn on top."""
    order = {"company": 0, "pruned": 1, "seed": 2, "guided": 3, "random": 4}
    return order[candidate.origin], -(candidate.miou or 0.0)


def _labels(shown: Sequence[Candidate], untrained: Sequence[Candidate], panel: _Panel, summary: Summary) -> Html:
    """Names of the winner, the published networks and the best of the others, where there is room for them."""
    named = [(each.name, _place(each, panel), "name") for each in _worth_naming(shown, untrained, panel)]
    taken = _obstacles(shown, untrained, panel, summary)
    if panel.winner is not None:
        star = (panel.x(panel.winner.timing.milliseconds), panel.y(panel.winner.miou))
        taken.append(_around(star, 11))
        named.insert(0, (panel.winner.name, star, "name winner-name"))
    bounds = Box(left=panel.frame.left + 2, top=panel.frame.top, right=panel.frame.right, bottom=RUG + 12)
    parts = []
    for name, point, kind in named:
        words = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        box = place_label(words, point, taken, bounds)
        if box is not None:
            taken.append(box)
            parts.append(label(words, box, point, kind))
    return joined(parts)


def _obstacles(
    shown: Sequence[Candidate], untrained: Sequence[Candidate], panel: _Panel, summary: Summary
) -> list[Box]:
    """What a name must not cover: markers, intervals, gains, the budget line, the words in the corner."""
    budget = panel.x(summary.budget_milliseconds)
    boxes = [
        Box(left=budget - 1, top=panel.frame.top, right=budget + 1, bottom=BOTTOM),
        Box(left=WHOLE.left, top=RUG - 8, right=WHOLE.left + 80, bottom=RUG + 8),
    ]
    for each in (*shown, *untrained):
        x, y = _place(each, panel)
        boxes.append(_around((x, y), 7))
        if summary.statistic == "p50" and each.miou is not None:
            low, high = panel.x(each.timing.ci_low_milliseconds), panel.x(each.timing.ci_high_milliseconds)
            boxes.append(Box(left=low, top=y - 1, right=high, bottom=y + 1))
        if each.search_miou is not None and each.finish:
            heights = sorted((y, panel.y(each.search_miou)))
            boxes.append(Box(left=x - 2, top=heights[0], right=x + 2, bottom=heights[1] + 2))
    return boxes


def _worth_naming(shown: Sequence[Candidate], untrained: Sequence[Candidate], panel: _Panel) -> Iterable[Candidate]:
    for origin, most in panel.named:
        yield from sorted((each for each in shown if each.origin == origin), key=_rank)[:most]
        if origin == "company":
            yield from (each for each in untrained if each.origin == "company")


def _place(candidate: Candidate, panel: _Panel) -> tuple[float, float]:
    """Where a candidate is in the picture; what was not trained is below the frame."""
    y = RUG if candidate.miou is None else panel.y(candidate.miou)
    return panel.x(candidate.timing.milliseconds), y


def _around(point: tuple[float, float], pixels: float) -> Box:
    x, y = point
    return Box(left=x - pixels, top=y - pixels, right=x + pixels, bottom=y + pixels)


def _legend() -> Html:
    parts, x = [], WHOLE.left + 84.0
    for kind, words, hollow in LEGEND:
        parts += [_marker(kind, x, 14, hollow), text(x + 13, 18, words, "tick")]
        x += 13 + len(words) * CHARACTER_PIXELS + 24
    parts += [line(x, 7, x, 21, "rug stroke-random"), text(x + 8, 18, "not trained", "tick")]
    return joined(parts)
