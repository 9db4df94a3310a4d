"""The report of a search for several budgets: a winner for each, and one picture of all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

from nas.report import Summary, summarize, write_report
from nas.report.pareto import pareto
from nas.report.sentences import efforts, headline
from nas.report.terminal import frontier_table, leaderboard_table
from nas.runs.folder import RunFolder
from space import Architecture, strict


def test_each_budget_has_its_winner_or_the_reason_why_not(frontier: RunFolder) -> None:
    summary = summarize(frontier)
    assert summary.winner is None
    assert [(each.budget, each.folder, each.winner and each.winner.name) for each in summary.answers] == [
        ("1ms", "winners/1ms", None),
        ("5ms", "winners/5ms", "guided 1"),
        ("10ms", "winners/10ms", "large seed"),
    ]
    assert "1ms was given up: the narrowest networks take 2.00 ms." in summary.notes
    assert summary.going.steps == ()
    assert "2 of 3 budgets have a winner" in headline(summary)
    assert "5ms: guided 1, 51.0% mIoU in 4.75 ms (passed)" in headline(summary)
    assert strict.parse(strict.dump(summary), Summary, "report.yaml") == summary


def test_the_leaderboard_has_winners_and_company_of_each_budget(frontier: RunFolder) -> None:
    summary = summarize(frontier)
    assert [(row.place, row.name, row.timing.budget) for row in summary.leaderboard] == [
        ("winner", "guided 1", "5ms"),
        ("published, scaled", "small seed", "5ms"),
        ("best random", "random 1", "5ms"),
        ("winner", "large seed", "10ms"),
        ("best random", "random 2", "10ms"),
        ("published, own width", "slow", "10ms"),
    ]
    lines = leaderboard_table(summary).splitlines()
    assert "inside 5ms" in lines[2]
    assert "3.00x" in lines[-1]
    table = frontier_table(summary).splitlines()
    assert "none: given up" in table[2]
    assert table[4].split()[:2] == ["10ms", "large"]
    assert table[4].endswith("winners/10ms")


def test_a_candidate_over_its_own_budget_is_infeasible(
    made: Any, frontier: RunFolder, architecture: Callable[[float], Architecture]
) -> None:
    made.trial(7, "random 3", "random", architecture(0.45), 5.2, budget=5.0)
    summary = summarize(frontier)
    assert {each.name: each.status for each in summary.trials}["random 3"] == "infeasible"
    assert (summary.going.waiting, summary.going.over_budget) == (0, 1)


def test_random_and_guided_candidates_are_compared_within_each_budget(
    frontier: RunFolder, short: Callable[[RunFolder], RunFolder]
) -> None:
    words = efforts(summarize(short(frontier)))
    assert [each.partition(":")[0] for each in words] == ["1ms", "5ms", "10ms"]
    assert "30.0 % by random search (expected value) and 35.0 % by guided search" in words[1]
    assert "45.0 % by random search (expected value) and 40.0 % by guided search" in words[2]


def test_rungs_and_finishes_are_compared_within_budgets(frontier: RunFolder) -> None:
    """Both seeds gain, and a guided candidate that begins below both ends above one: only budgets separate them."""
    finish = next(each for each in summarize(frontier).agreements if each.truth == "mIoU after the finish")
    assert finish.points == 3


def test_a_single_picture_shows_all_budgets_and_winners(frontier: RunFolder) -> None:
    (picture,) = pareto(summarize(frontier))
    words = {each.text for each in ElementTree.fromstring(picture).iter("text")}
    assert {"1ms", "5ms", "10ms", "guided 1", "large seed"} <= words
    titles = {each.text for each in ElementTree.fromstring(picture).iter("title")}
    assert {"guided 1: 4.75 ms", "large seed: 9.75 ms"} <= titles
    groups = [each.get("class") for each in ElementTree.fromstring(picture).iter("g")]
    assert groups.count("budget") == 3
    assert groups.count("winner-name") == 2


def test_the_page_shows_every_winner(frontier: RunFolder) -> None:
    page = write_report(frontier).read_text("utf-8")
    assert "<h1>2 winners, 5ms to 10ms</h1>" in page
    for budget in ("5ms", "10ms"):
        assert f"<h2>Predictions of the winner for {budget}</h2>" in page
        assert f"<h2>Certificate for {budget}</h2>" in page
        assert f"<code>winners/{budget}</code>" in page
    assert "none: given up" in page
    assert page.count("data:image/jpeg;base64,") == 2 * 9


def test_a_page_with_one_winner_of_several_budgets_is_called_by_its_name(frontier: RunFolder) -> None:
    shutil.rmtree(frontier.root / "winners" / "10ms")
    assert "1 of 3 budgets has a winner" in headline(summarize(frontier))
    assert "<h1>guided 1</h1>" in write_report(frontier).read_text("utf-8")


def test_the_report_of_a_run_without_winners_lists_the_next_steps_for_all_budgets(made: Any) -> None:
    plan = replace(made.run.study().search, seeds=("erfnet",), random_trials=2, guided_trials=2, stop_weak=False)
    made.run.write_study(replace(made.run.study(), budget="", budgets=("5ms", "10ms"), search=plan))
    summary = summarize(made.run)
    assert "No winners yet for 5ms, 10ms" in headline(summary)
    assert summary.going.steps[:2] == (
        "propose, time and train 6 more candidates",  # for each budget a seed, a random one and a guided one
        "train the best 4 candidates for 20 more epochs",
    )
    assert "none yet" in write_report(made.run).read_text("utf-8")
