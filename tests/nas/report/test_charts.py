"""The charts: their points, styles and labels, and the words under the pointer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from nas.report import Summary, summarize
from nas.report.curves import curves
from nas.report.drawing import framed, look
from nas.report.pareto import pareto, round_values
from nas.report.svg import as_svg
from nas.report.terminal import leaderboard_table
from nas.runs.folder import RunFolder
from space import Architecture


def elements(picture: Markup, kind: str) -> list[ElementTree.Element]:
    """The groups of a class."""
    return [each for each in ElementTree.fromstring(picture).iter("g") if each.get("class") == kind]


def styles(picture: Markup) -> dict[str, str]:
    """The styles of elements that show words under the pointer, by these words."""
    found = {}
    for group in ElementTree.fromstring(picture).iter("g"):
        words = group.findtext("title")
        if words is not None:
            found[words] = " ".join(path.get("style", "") for path in group.iter("path"))
    return found


def written(picture: Markup) -> set[str]:
    """The words of a picture."""
    return {each.text or "" for each in ElementTree.fromstring(picture).iter("text")}


@pytest.fixture
def summary(full: RunFolder) -> Summary:
    return summarize(full)


def test_every_point_of_a_picture_has_its_name_and_figures_under_the_pointer(summary: Summary) -> None:
    whole, close = pareto(summary)
    assert set(styles(whole)) == {
        "guided 1: 9.77 ms",
        "seed <script>alert(1)</script>: 9.50 ms, 55.0% mIoU (finished)",
        "random 1: 9.00 ms, 33.0% mIoU (finished)",
        "random 2: 9.10 ms, 25.0% mIoU (stopped)",
        "random 3: 25.00 ms (infeasible)",
        "guided 2: 9.70 ms, 20.0% mIoU (failed)",
        "guided 3: 9.60 ms, 30.0% mIoU (unfinished)",
        "erfnet: 30.00 ms, 50.0% mIoU (finished)",
    }
    far = {each for each in styles(whole) if each.startswith(("random 3", "erfnet"))}
    assert set(styles(close)) == set(styles(whole)) - far


def test_points_of_unfinished_trainings_are_hollow(summary: Summary) -> None:
    whole, _ = pareto(summary)
    trained = {words: style for words, style in styles(whole).items() if "mIoU" in words}
    hollow = {words.partition(":")[0] for words, style in trained.items() if "fill: var(--ground)" in style}
    assert hollow == {"random 2", "guided 2", "guided 3"}


def test_the_picture_shows_intervals_gains_of_finishing_and_the_frontier(summary: Summary) -> None:
    whole, close = pareto(summary)
    assert [len(elements(each, "interval")) for each in (whole, close)] == [6, 5]  # all trained but the winner
    assert [len(elements(each, "gain")) for each in (whole, close)] == [3, 2]  # seed, guided 1, and erfnet
    assert [len(elements(each, "frontier")) for each in (whole, close)] == [1, 1]
    assert [len(elements(each, "budget")) for each in (whole, close)] == [1, 1]


def test_precisions_have_frontiers_of_their_own(full: RunFolder) -> None:
    (quantized,) = [trial for trial in full.trials() if trial.name == "random 1"]
    int8 = replace(quantized.latency, target=quantized.latency.target.replace("@", ":int8@"))
    full.write_trial(replace(quantized, latency=int8))
    summary = summarize(full)
    assert summary.precisions == ("fp32", "int8")
    whole, _ = pareto(summary)
    assert len(elements(whole, "frontier")) == 2
    assert "int8" in written(whole)
    assert "random 1: 9.00 ms in int8, 33.0% mIoU (finished)" in styles(whole)
    assert "precision" in leaderboard_table(summary).splitlines()[0]
    assert not any("are not comparable" in note for note in summary.notes)
    assert any("timed in int8, but the study now asks for" in note for note in summary.notes)
    full.write_study(replace(full.study(), precisions=("fp32", "int8")))
    assert not any("now asks for" in note for note in summarize(full).notes)


def test_an_interval_is_that_of_the_median_only(full: RunFolder) -> None:
    full.write_study(replace(full.study(), budget="10ms p90"))
    assert [len(elements(each, "interval")) for each in pareto(summarize(full))] == [0]


def test_names_are_written_only_where_they_have_room(summary: Summary) -> None:
    whole, close = pareto(summary)
    assert {"guided 1", "erfnet", "budget 10ms"} <= written(whole)
    assert {"guided 1", "seed <script>alert(1)</script>", "random 1", "guided 3"} <= written(close)
    assert "erfnet" not in written(close)
    assert [len(elements(each, "winner-name")) for each in (whole, close)] == [1, 1]


def test_few_points_need_a_single_picture(made: Any, architecture: Callable[[float], Architecture]) -> None:
    made.trial(1, "random 1", "random", architecture(0.1), 5.0, (0.1, 0.2, 0.3))
    (whole,) = pareto(summarize(made.run))
    assert "random 1" in written(whole)


def test_every_trained_candidate_has_a_curve_and_the_longest_a_name(summary: Summary) -> None:
    picture = curves(summary)
    assert picture is not None
    assert set(styles(picture)) == {each.name for each in summary.measured if each.epochs}
    assert "var(--winner)" in styles(picture)["guided 1"]
    assert {"guided 1", "erfnet", "seed <script>alert(1)</…"} <= written(picture)
    assert "random 2" not in written(picture)


def test_curves_have_points_only_where_there_are_scores(
    made: Any, architecture: Callable[[float], Architecture]
) -> None:
    """Each of few scores is a dot, since a line says nothing about the epochs between them."""
    rung, finish, rungs = (None, None, 0.3), (None, None, 0.5), (1, 3)
    made.trial(1, "every epoch", "random", architecture(0.1), 9.0, (0.2, 0.25, 0.3), (0.35, 0.4, 0.5))
    made.trial(2, "ends", "random", architecture(0.2), 9.0, (0.2, *rung[1:]), finish, rungs=rungs)
    made.trial(3, "one end", "random", architecture(0.3), 9.0, rung)
    made.trial(4, "under way", "random", architecture(0.4), 9.0, (0.2, None), rungs=rungs)
    made.trial(5, "no score yet", "random", architecture(0.5), 9.0, (None, None))
    picture = curves(summarize(made.run))
    assert picture is not None
    groups = [each for each in ElementTree.fromstring(picture).iter("g") if each.findtext("title")]
    dots = {each.findtext("title"): sum("transform" in path.attrib for path in each.iter("path")) for each in groups}
    assert dots == {"every epoch": 2, "ends": 3, "one end": 1, "under way": 1}
    assert "nan" not in picture


def test_a_run_without_epochs_has_no_learning_curves(made: Any) -> None:
    assert curves(summarize(made.run)) is None


@pytest.mark.parametrize(("low", "high"), [(1.6, 53.0), (8.0, 12.5), (0.03, 900.0)])
def test_round_values_are_apart_by_ratio(low: float, high: float) -> None:
    values = round_values(low, high, most=10)
    assert all(low <= value <= high for value in values)
    assert all(after / before >= (high / low) ** (1 / 10) for before, after in pairwise(values))
    assert 10.0 in values


def test_a_colour_without_a_name_is_refused() -> None:
    with look():
        figure, axes = framed(100, 100, 10, 10, 10, 10)
        axes.plot((0, 1), (0, 1), color="#123456")
        with pytest.raises(KeyError):
            as_svg(figure, "name", "title")
