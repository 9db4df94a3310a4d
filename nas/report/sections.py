"""The parts of the page that are text and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.report.agreement import FEWEST_POINTS, Agreement
from nas.report.markup import Html, element, joined
from nas.report.samples import Samples
from nas.report.summary import Candidate, Effort, Standing, Summary, Timing, Winner
from nas.terminal import percent
from space import strict

NUMBER = {"class": "n"}
NAME = {"class": "name"}
ORIGINS = {
    "seed": "published, scaled",
    "random": "random",
    "guided": "guided",
    "company": "published, own width",
    "pruned": "published, pruned",
}


def tiles(summary: Summary, winner: Winner) -> Html:
    """The winner's figures, large."""
    certificate, timing = winner.certificate, winner.timing
    half = (timing.ci_high_milliseconds - timing.ci_low_milliseconds) / 2
    verdict = element("span", {"class": "passed"}, "passed")
    if not certificate.passed:
        verdict = element("span", {"class": "failed"}, "FAILED")
    statistic = "" if summary.statistic == "p50" else f", {summary.statistic} {timing.milliseconds:.2f} ms"
    share = timing.milliseconds / summary.budget_milliseconds
    shown = (
        (f"{percent(winner.miou)} %", f"mIoU on {certificate.validation_images} validation images"),
        (f"{timing.p50_milliseconds:.2f} ms", f"±{half:.2f} ms, 95 % interval of the median{statistic}"),
        (verdict, f"budget {certificate.budget}, {share:.0%} of it used"),
        (_millions(certificate.parameters), "parameters"),
        (f"{certificate.multiply_adds / 1e9:.2f} G", "multiply-adds per image"),
    )
    return element(
        "div",
        {"class": "tiles"},
        *(element("div", {"class": "tile"}, element("b", {}, big), element("span", {}, small)) for big, small in shown),
    )


def leaderboard(summary: Summary) -> Html:
    """The winner beside its company."""
    header = (
        "", "network", "latency (ms)", "budget", "mIoU, search (%)", "mIoU, end (%)", "epochs", "parameters", "GMAC",
    )  # fmt: skip
    rows = [_standing(row, summary) for row in summary.leaderboard]
    return table(header, rows, numbers=(2, 4, 5, 6, 7, 8), first=summary.winner is not None)


def _standing(row: Standing, summary: Summary) -> tuple[object, ...]:
    return (
        element("span", NAME, row.place),
        element("span", NAME, row.name),
        latency_cell(row.timing, summary),
        within(row.timing, summary),
        percent(row.search_miou),
        percent(row.miou),
        row.epochs or "-",
        _millions(row.parameters),
        f"{row.multiply_adds / 1e9:.2f}",
    )


def effort_words(effort: Effort) -> str:
    """What the sampler's guidance was worth, in a sentence or two."""
    found = f"{effort.random_trials} random and {effort.guided_trials} guided candidates were trained."
    if effort.compared == 0:
        return f"{found} Guided and random search cannot be compared without some of both."
    best = (
        f"Among the first {effort.compared} of each, the best mIoU inside the budget after the search phase is "
        f"{_percent_words(effort.best_random_miou)} of the random and {_percent_words(effort.best_guided_miou)} "
        "of the guided ones."
    )
    return f"{found} {best} Guided candidates were proposed knowing the results of those before them."


def _percent_words(share: float | None) -> str:
    return "none" if share is None else f"{percent(share)} %"


def trials(summary: Summary) -> Html:
    """Every candidate that was proposed, and the company."""
    header = (
        "no.", "name", "origin", "latency (ms)", "parameters", "GMAC", "mIoU, search (%)", "mIoU, finish (%)", "status",
    )  # fmt: skip
    rows = [_trial(each, summary) for each in summary.measured]
    remarks = [element("li", {}, f"{each.name}: {words}") for each in summary.measured for words in _remarks(each)]
    listed = element("ul", {"class": "muted"}, *remarks) if remarks else Html()
    return joined((table(header, rows, numbers=(0, 3, 4, 5, 6, 7)), listed))


def _remarks(candidate: Candidate) -> list[str]:
    """Why it failed and why not to trust its latency."""
    failed = [f"failed: {candidate.failed}"] if candidate.failed else []
    flagged = [f"latency flagged: {'; '.join(candidate.timing.flagged)}"] if candidate.timing.flagged else []
    return failed + flagged


def _trial(candidate: Candidate, summary: Summary) -> tuple[object, ...]:
    is_winner = summary.winner is not None and candidate.key == summary.winner.key
    return (
        "" if candidate.origin == "company" else candidate.number,
        element("span", NAME, element("b", {}, candidate.name, " ★") if is_winner else candidate.name),
        element("span", {"class": f"origin origin-{candidate.origin}"}, ORIGINS[candidate.origin]),
        latency_cell(candidate.timing, summary),
        _millions(candidate.parameters),
        f"{candidate.multiply_adds / 1e9:.2f}",
        percent(candidate.search_miou),
        percent(candidate.finish_miou),
        candidate.status,
    )


def latency_cell(timing: Timing, summary: Summary) -> Html:
    """Median and half its interval, and the statistic that the budget bounds if that is another one; flags below."""
    half = (timing.ci_high_milliseconds - timing.ci_low_milliseconds) / 2
    words = f"{timing.p50_milliseconds:.2f} ±{half:.2f}"
    if summary.statistic != "p50":
        words += f", {summary.statistic} {timing.milliseconds:.2f}"
    kind = "" if timing.within_budget else "over-budget"
    flag = element("span", {"class": "flag"}, " flagged") if timing.flagged else Html()
    return joined((flag, " ", element("span", {"class": kind}, words)))


def within(timing: Timing, summary: Summary) -> Html:
    """Inside the budget, or how far over it."""
    if timing.within_budget:
        return element("span", {"class": "passed"}, "inside")
    times = timing.milliseconds / summary.budget_milliseconds
    return element("span", {"class": "over-budget"}, f"{times:.1f}x" if times >= 1.1 else f"{times:.2f}x")


def class_bars(winner: Winner, colours: Mapping[str, str]) -> Html:
    """IoU of every class as bars."""
    rows = []
    for name, iou in winner.certificate.class_iou.items():
        bar = element("div", {"style": f"width:{100 * iou:.1f}%"}) if iou is not None else Html()
        cells = (
            element("td", {}, chip(colours.get(name)), name),
            element("td", {"class": "bar"}, bar),
            element("td", NUMBER, percent(iou)),
        )
        rows.append(element("tr", {}, *cells))
    return element("table", {}, element("tbody", {}, *rows))


def chip(colour: str | None) -> Html:
    """A square in a class's colour."""
    return element("span", {"class": "chip", "style": f"background:{colour}"}) if colour else Html()


def samples(drawn: Samples) -> Html:
    """Pictures with label and prediction in rows, and what the colours mean."""
    if drawn.missing:
        return element("p", {"class": "muted"}, drawn.missing)
    cells: list[Html] = [element("span", {}, words) for words in ("image", "label", "prediction")]
    for each in drawn.pictures:
        for source, what in ((each.image, "image"), (each.label, "label"), (each.prediction, "prediction")):
            cells.append(element("img", {"src": source, "alt": f"{each.name}: {what}"}))
    chips = [element("span", {}, chip(colour), name) for name, colour in drawn.colours.items()]
    return joined((element("div", {"class": "samples"}, *cells), element("div", {"class": "chips"}, *chips)))


def agreements(found: Sequence[Agreement]) -> Html:
    """How well proxies order candidates."""
    rows = [
        (each.proxy, each.truth, each.points, "-" if each.tau is None else f"{each.tau:+.2f}", _judgement(each))
        for each in found
    ]
    return table(("proxy", "stands for", "candidates", "Kendall tau", ""), rows, numbers=(2, 3))


def _judgement(each: Agreement) -> str:
    if each.points < FEWEST_POINTS:
        return f"too few: {FEWEST_POINTS} are needed"
    if each.tau is None:
        return "all the same"
    agreeing = f"puts about {(1 + each.tau) / 2:.0%} of pairs in the right order"
    return agreeing + ("; few candidates" if each.points < 10 else "")


def definitions(entries: Mapping[str, object]) -> Html:
    """Names and what belongs to them."""
    return element(
        "dl", {}, *(joined((element("dt", {}, name), element("dd", {}, words))) for name, words in entries.items())
    )


def certificate(winner: Winner) -> Html:
    """Every field of the certificate but the IoU of classes, which are bars."""
    plain: Mapping[str, Any] = strict.plain(winner.certificate)
    whole = {name: value for name, value in plain.items() if not isinstance(value, dict)}
    latency = {name: value for name, value in plain["latency"].items() if name != "environment"}
    return joined(
        (
            definitions(_readable(whole)),
            element("h3", {}, "Latency"),
            definitions(_readable(latency)),
            element("h3", {}, "Environment"),
            definitions(_readable(plain["latency"]["environment"])),
            element("h3", {}, "Files (SHA-256)"),
            definitions({name: element("code", {}, digest) for name, digest in plain["sha256"].items()}),
        )
    )


def _readable(values: Mapping[str, Any]) -> dict[str, str]:
    return {_label(name): _value(value) for name, value in values.items()}


def _label(name: str) -> str:
    words = name.removesuffix("_milliseconds").replace("_", " ")
    return f"{words} (ms)" if name.endswith("_milliseconds") else words


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value) or "none"
    return "none" if value is None else str(value)


def table(
    header: Sequence[str], rows: Sequence[Sequence[object]], *, numbers: Sequence[int] = (), first: bool = False
) -> Html:
    """A table; columns `numbers` are aligned right, the `first` row is emphasised."""
    paint = [NUMBER if column in numbers else {} for column in range(len(header))]
    head = [element("th", kind, words) for kind, words in zip(paint, header, strict=True)]
    body = [
        element(
            "tr",
            {"class": "first"} if first and index == 0 else {},
            *(element("td", kind, cell) for kind, cell in zip(paint, row, strict=True)),
        )
        for index, row in enumerate(rows)
    ]
    whole = element("table", {}, element("thead", {}, element("tr", {}, *head)), element("tbody", {}, *body))
    return element("div", {"class": "wide"}, whole)


def _millions(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1_000_000 else f"{count / 1e3:.1f} k"
