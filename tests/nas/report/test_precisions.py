"""Latencies in several precisions, in the figures, on the page and below the table of a terminal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nas.latency.record import OtherPrecision
from nas.report import Summary, leaderboard_text, summarize, write_report
from nas.report.sentences import headline
from nas.runs.certificate import ComparedForm, read_certificate
from nas.runs.folder import RunFolder
from nas.runs.trial import Trial
from nas.storage.files import write_text
from space import Architecture, strict

INT8 = {"random 1": 0.8, "random 2": 1.25, "random 3": 1.1, "guided 1": 1.2}
"""What some candidates took in INT8, as a share of what they took in full precision."""


@pytest.fixture
def run(full: RunFolder) -> RunFolder:
    """A finished run in full precision and INT8, in which `random 1` counts."""
    full.write_study(replace(full.study(), precisions=("fp32", "int8")))
    for trial in full.trials():
        if trial.name in INT8:
            full.write_trial(in_both(trial, INT8[trial.name]))
    return full


def in_both(trial: Trial, share: float) -> Trial:
    whole = trial.latency
    assert whole is not None
    int8 = replace(
        whole,
        target=whole.target.replace("@", ":int8@"),
        **{
            name: share * getattr(whole, name)
            for name in vars(whole)
            if name.endswith("_milliseconds") and name not in ("reference_milliseconds", "processes_milliseconds")
        },
        flagged=("a <busy> machine",) if trial.name == "random 2" else (),
    )
    chosen, other = (int8, whole) if share < 1 else (whole, int8)
    return replace(trial, latency=replace(chosen, other_precisions=(OtherPrecision.of(other),)))


COUNTED = "int8 is the chosen precision for 1 of 7 candidates"
WORDS = f"{COUNTED}; in the median it took 1.10 times as long as fp32 (from 3 candidates timed undisturbed in both)."


def test_the_figures_hold_the_latencies_in_other_precisions(run: RunFolder) -> None:
    summary = summarize(run)
    timings = {each.name: each.timing for each in summary.trials}
    assert timings["random 1"].precision == "int8"
    assert [each.precision for each in timings["random 1"].other_precisions] == ["fp32"]
    assert timings["random 1"].other_precisions[0].p50_milliseconds == 9.0
    assert timings["guided 2"].other_precisions == ()
    (int8,) = summary.lower_precisions
    assert (int8.precision, int8.highest, int8.counted, int8.candidates) == ("int8", "fp32", 1, 7)
    assert (int8.compared, int8.undisturbed) == (4, 3)
    assert int8.times_as_long == pytest.approx(1.1), "random 2 was timed on a busy machine"
    assert strict.parse(strict.dump(summary), Summary, "report.yaml") == summary


def recertified(folder: Path, **changed: Any) -> None:
    """Change values of the certificate in a folder."""
    write_text(folder / "certificate.yaml", strict.dump(replace(read_certificate(folder), **changed)))


def in_int8(folder: Path) -> None:
    recertified(folder, latency=replace(read_certificate(folder).latency, target="onnxruntime:int8@cpu:1"))


def test_a_winner_is_named_with_its_target(run: RunFolder) -> None:
    in_int8(run.winner)
    assert "on onnxruntime:int8@cpu:1 at 64x96; budget 10ms: passed" in headline(summarize(run))


def test_each_winner_is_named_with_its_target_if_targets_differ(frontier: RunFolder) -> None:
    assert "2 of 3 budgets have a winner on onnxruntime@cpu:1 at 64x96. " in headline(summarize(frontier))
    in_int8(frontier.root / "winners" / "5ms")
    words = headline(summarize(frontier))
    assert words.startswith("2 of 3 budgets have a winner. 5ms: guided 1, 51.0% mIoU in 4.75 ms on onnxruntime:int8@")
    assert "10ms: large seed, 61.0% mIoU in 9.75 ms on onnxruntime@cpu:1 at 64x96 (passed)" in words


def test_the_page_lists_the_forms_among_which_a_winner_was_chosen(full: RunFolder) -> None:
    latency = replace(read_certificate(full.winner).latency, flagged=("busy",))
    forms = (
        ComparedForm.of("onnxruntime@cpu:1", latency, "kept", miou=0.5, same_labels=0.875),
        ComparedForm.refused("onnxruntime:int8@cpu:1", "left out: it <crashed>"),
    )
    recertified(full.winner, compared=forms)
    page = write_report(full).read_text()
    table = page[page.index("Compared forms") : page.index("Files (SHA-256)")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in table.split("<tr")[2:]]
    assert rows == [
        ["onnxruntime@cpu:1", '<span class="flag">flagged</span> 9.77 ±0.10', "50.0", "87.5", "kept"],
        ["onnxruntime:int8@cpu:1", "-", "-", "-", "left out: it &lt;crashed&gt;"],
    ]
    assert "p50_milliseconds" not in page


def test_page_and_terminal_summarise_the_precisions_in_a_sentence(run: RunFolder) -> None:
    assert leaderboard_text(run).splitlines()[-1] == WORDS
    page = write_report(run).read_text()
    assert f"<p>{WORDS}</p>" in page
    assert page.index(WORDS) < page.index("<h2>Leaderboard"), "below the frontiers"
    assert ">fp32 9.00 ±0.09</td>" in page
    assert '<span class="flag">flagged</span> int8 11.38 ±0.11</td>' in page


def test_precisions_are_compared_by_the_statistic_of_the_budget(run: RunFolder) -> None:
    (trial,) = (trial for trial in run.trials() if trial.name == "random 3")
    assert trial.latency is not None
    (int8,) = trial.latency.other_precisions
    slow = replace(int8, p90_milliseconds=4 * int8.p90_milliseconds, p99_milliseconds=4 * int8.p99_milliseconds)
    run.write_trial(replace(trial, latency=replace(trial.latency, other_precisions=(slow,))))
    run.write_study(replace(run.study(), budget="10ms p90"))
    (lower,) = summarize(run).lower_precisions
    assert lower.times_as_long == pytest.approx(1.2)


def test_only_candidates_are_counted_in_the_summary_of_precisions(
    run: RunFolder, made: Any, architecture: Callable[[float], Architecture]
) -> None:
    (company,) = run.company()
    run.write_trial(in_both(company, 0.5))
    run.write_trial(in_both(made.trial(8, "random 1, pruned", "pruned", architecture(0.12), 8.0), 0.5))
    assert leaderboard_text(run).splitlines()[-1] == WORDS


def test_precisions_of_published_networks_alone_are_in_the_table_but_not_in_a_sentence(full: RunFolder) -> None:
    (company,) = full.company()
    full.write_trial(in_both(company, 1.5))
    assert summarize(full).lower_precisions == ()
    assert "other precisions (ms)" in write_report(full).read_text()


@pytest.mark.parametrize(
    ("flagged", "ending"),
    [
        ((), "(from 4 candidates timed in both)."),
        (tuple(INT8), "(from 4 candidates timed in both, on a busy machine)."),
    ],
)
def test_disturbed_latencies_count_only_if_there_are_no_others(
    flagged: tuple[str, ...], ending: str, run: RunFolder
) -> None:
    for trial in run.trials():
        if trial.latency is not None and trial.name in INT8:
            (other,) = trial.latency.other_precisions
            other = replace(other, flagged=("busy",) if trial.name in flagged else ())
            run.write_trial(replace(trial, latency=replace(trial.latency, flagged=(), other_precisions=(other,))))
    assert (
        leaderboard_text(run).splitlines()[-1]
        == f"{COUNTED}; in the median it took 1.15 times as long as fp32 {ending}"
    )


def test_the_precisions_of_a_run_of_an_earlier_version_are_named(run: RunFolder) -> None:
    for trial in run.trials():
        if trial.latency is not None:
            run.write_trial(replace(trial, latency=replace(trial.latency, other_precisions=())))
    assert leaderboard_text(run).splitlines()[-1] == f"{COUNTED}."


def test_a_run_in_one_precision_has_no_summary_of_precisions(full: RunFolder) -> None:
    assert summarize(full).lower_precisions == ()
    assert "precision" not in strict.dump(summarize(full)).replace("precision: fp32", "")
