"""The report as one HTML file without scripts or external resources, identical for the same run. While a search works
on the run, the page reloads itself.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from nas.host.words import counted
from nas.report import formats, palette
from nas.report.curves import curves
from nas.report.going import going_words
from nas.report.pareto import KINDS, LEGEND, pareto
from nas.report.precisions import precision_sentence, timed_in
from nas.report.predictions import Predictions, draw_predictions
from nas.report.sentences import efforts, headline
from nas.report.summary import VERDICTS, Summary, summarize
from nas.report.timings import timing_words
from nas.report.waiting import waiting_words
from nas.runs.folder import FIGURES, PAGE, WINNER, RunFolder
from nas.runs.trial import Origin
from nas.storage.files import write_text
from nas.storage.ownership import is_owned
from nas.terminal import percent
from space import strict

GENERATOR = "nas report"
MARKS: Mapping[str, str] = {
    PAGE: f'<meta name="generator" content="{GENERATOR}">',
    FIGURES: "\nbudget_milliseconds: ",
}
"""Text that identifies a file of an earlier report; outside of a run's folder only such files are replaced."""
ORIGINS: Mapping[Origin, str] = {
    "seed": "published, scaled",
    "random": "random",
    "guided": "guided",
    "company": "published, own width",
    "pruned": "published, pruned",
}


def write_report(run: RunFolder) -> Path:
    """Write report.html and report.yaml (`Summary`) into the run's folder, and return the path of the page. This takes
    a while: commands call it inside the lane (`nas.latency.machine.lane`), so that it disturbs no timing.

    Raises: UserError when a file of the run is damaged.
    """
    return write_summary(run, summarize(run))


def write_summary(run: RunFolder, summary: Summary, out: Path | None = None) -> Path:
    """Write both files from a summary, into the run's folder or `out`, and return the path of the page. This takes as
    long as `write_report`.

    Raises: UserError when one of the files in `out` is not of a report.
    """
    page = (out or run.root) / PAGE
    folders = [each.folder for each in summary.answers if each.winner is not None] or [WINNER]
    drawn = [draw_predictions(run, run.root / folder) for folder in folders] if summary.winners else []
    marks = {} if page.parent == run.root else MARKS
    write_text(page.with_name(FIGURES), strict.dump(summary), mark=marks.get(FIGURES, ""))
    write_text(page, render(summary, drawn, goes_on=is_owned(run.root)), mark=marks.get(PAGE, ""))
    return page


def render(summary: Summary, drawn: Sequence[Predictions], *, goes_on: bool) -> str:
    """The page's HTML. `drawn`: the pictures of each winner. `goes_on`: a search is working on the run and will replace
    the page.
    """
    return _environment().get_template("page.html").render(
        summary=summary,
        winners=[
            (winner, pictures, formats.certificate_fields(winner.certificate))
            for winner, pictures in zip(summary.winners, drawn, strict=True)
        ],
        named={winner.key for winner in summary.winners},
        names={each.key: each.name for each in summary.measured},
        headline=headline(summary),
        going=going_words(summary.going) if summary.going.steps else "",
        reloads=goes_on and bool(summary.going.steps),
        verdicts=VERDICTS,
        efforts=efforts(summary),
        costs=[timing_words(summary.timings), waiting_words(summary.waited_for_data, summary.waited_for_lane)],
        size=f"{summary.input_size[0]}x{summary.input_size[1]}",
        pareto=pareto(summary) if summary.measured else (),
        precision_sentences=[precision_sentence(each) for each in summary.lower_precisions],
        timed_in=timed_in(summary.measured),
        curves=curves(summary),
        legend=LEGEND,
        origins=ORIGINS,
        kinds=KINDS,
        remarks=[words for each in summary.measured for words in formats.remarks(each)],
        light=palette.LIGHT,
        dark=palette.DARK,
        printed=palette.PRINTED,
        figures=FIGURES,
        generator=GENERATOR,
    )  # fmt: skip


@functools.cache
def _environment() -> Environment:
    """Jinja's environment: all text is escaped except `Markup`, which only charts are; missing names are errors."""
    environment = Environment(
        loader=PackageLoader("nas.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "counted": counted,
        "percent": percent,
        "quantity": formats.quantity,
        "giga": formats.giga,
        "half_interval": formats.half_interval,
        "form_latency": formats.form_latency,
        "latency": formats.latency,
        "in_precision": formats.in_precision,
        "times_over": formats.times_over,
        "judgement": formats.judgement,
    }
    return environment
