"""The report as one HTML file: no script, nothing loaded from elsewhere, the same for the same run."""

from __future__ import annotations

from pathlib import Path

from nas.report import sections
from nas.report.curves import curves
from nas.report.markup import Html, element, joined
from nas.report.pareto import pareto
from nas.report.samples import Samples, draw_samples
from nas.report.style import STYLE
from nas.report.summary import Summary, Winner, headline, summarize
from nas.runs.folder import RunFolder
from nas.storage.files import write_text
from space import strict

PAGE = "report.html"
FIGURES = "report.yaml"

PARETO_WORDS = (
    "Horizontal bars are 95 % intervals of the latency. A thin vertical line leads from a candidate's mIoU after the "
    "search phase (dot) to that after the finish; candidates without one were trained for the search phase only. The "
    "grey steps join what nothing faster beats. Hollow: stopped early, failed or unfinished."
)
LEADERBOARD_WORDS = (
    "“mIoU, search” compares networks after equally many epochs; “mIoU, end” is after all the epochs "
    "that a network had, and for the winner that of the finished artefact, fine-tuning included."
)
CURVES_WORDS = (
    "mIoU on the validation images after every epoch. A dot within a curve is the first epoch of the finish, which has "
    "a learning rate schedule of its own; thin curves ended with the search phase or earlier."
)
PROXY_WORDS = (
    "Kendall's tau is 1 where a cheap figure puts candidates in the same order as the real one, 0 where it says "
    "nothing and -1 where it reverses them. Candidates that were made to fill one budget are nearly equally fast; "
    "their order is partly noise, which lowers tau."
)


def write_report(run: RunFolder) -> Path:
    """Write report.html and report.yaml (`Summary`) into the run's folder; where the page lies.

    Raises: UserError when a file of the run is damaged.
    """
    return write_summary(run, summarize(run))


def write_summary(run: RunFolder, summary: Summary) -> Path:
    """Write both files from figures that are known already; where the page lies."""
    page = run.root / PAGE
    drawn = None if summary.winner is None else draw_samples(run)
    write_text(run.root / FIGURES, strict.dump(summary))
    write_text(page, render(summary, drawn))
    return page


def render(summary: Summary, drawn: Samples | None) -> str:
    """The page's HTML; `drawn` are the winner's pictures, None without a winner."""
    winner = summary.winner
    parts = [_top(summary)]
    if summary.measured:
        parts += [
            _section("Accuracy over latency", element("figure", {}, pareto(summary), _caption(PARETO_WORDS))),
            _section(
                "Leaderboard",
                sections.leaderboard(summary),
                _caption(LEADERBOARD_WORDS),
                element("p", {}, sections.effort_words(summary.effort)),
            ),
        ]
    if winner is not None and drawn is not None:
        parts += [_section("What the winner sees", sections.samples(drawn)), _winner(winner, drawn)]
    if summary.measured:
        parts += [
            _section("Candidates", sections.trials(summary)),
            _section("Learning curves", element("figure", {}, curves(summary), _caption(CURVES_WORDS))),
            _section("How far proxies can be believed", sections.agreements(summary.agreements), _caption(PROXY_WORDS)),
        ]
    if winner is not None:
        parts.append(_section("Certificate", sections.certificate(winner)))
    words = (
        "The same figures as data: ", element("code", {}, FIGURES), ". Written again by ",
        element("code", {}, "nas report"), ".",
    )  # fmt: skip
    parts.append(element("footer", {"class": "muted"}, *words))
    return _document(f"{summary.run}: {summary.budget} on {summary.target}", joined(parts))


def _top(summary: Summary) -> Html:
    size = f"{summary.input_size[0]}x{summary.input_size[1]}"
    winner = summary.winner
    title = f"No winner yet for {summary.budget}" if winner is None else winner.name
    asked = f"{summary.run}: {summary.data} at {size}, {summary.budget} on {summary.target}"
    parts = [
        element("p", {"class": "eyebrow"}, asked),
        element("h1", {}, title),
        element("p", {"class": "headline"}, headline(summary)),
    ]
    if winner is not None:
        parts.append(sections.tiles(summary, winner))
    parts += [element("p", {"class": "note"}, note) for note in summary.notes]
    return element("header", {}, *parts)


def _winner(winner: Winner, drawn: Samples) -> Html:
    described = [sections.definitions(winner.description)]
    if winner.genotype:
        answers = ", ".join(f"{name} {value}" for name, value in winner.genotype.items())
        described += [
            element("h3", {}, "Choices of the sampler, before the width was solved for the budget"),
            element("p", {}, element("code", {}, answers)),
        ]
    return _section(
        "The winner",
        element(
            "div",
            {"class": "pair"},
            element("div", {}, element("h3", {}, "Architecture"), *described),
            element("div", {}, element("h3", {}, "IoU per class (%)"), sections.class_bars(winner, drawn.colours)),
        ),
    )


def _section(title: str, *content: Html) -> Html:
    return element("section", {}, element("h2", {}, title), *content)


def _caption(words: str) -> Html:
    return element("figcaption", {}, words)


def _document(title: str, body: Html) -> str:
    head = joined(
        (
            element("meta", {"charset": "utf-8"}),
            element("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
            element("meta", {"name": "color-scheme", "content": "light dark"}),
            element("title", {}, title),
            element("style", {}, Html(STYLE)),
        )
    )
    whole = element("html", {"lang": "en"}, element("head", {}, head), element("body", {}, body))
    return f"<!doctype html>\n{whole}\n"
