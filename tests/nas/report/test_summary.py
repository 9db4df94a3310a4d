"""The figures of a run: statuses, leaderboard, comparisons and notes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from nas.latency.record import Latency
from nas.report import Summary, leaderboard_text, summarize
from nas.report.curves import curves
from nas.report.page import render
from nas.report.pareto import pareto
from nas.report.sentences import efforts, headline
from nas.report.timings import Timings, timing_words
from nas.report.waiting import waiting_words
from nas.runs.earlier import Earlier, EarlierTrial, write_earlier
from nas.runs.folder import SPENT, RunFolder
from nas.runs.spent import Spent
from nas.runs.trial import Measured, Timed, append_epoch, read_progress
from nas.storage.files import write_text
from space import Architecture, strict

Short = Callable[[RunFolder], RunFolder]


def test_every_trial_has_its_status(full: RunFolder) -> None:
    summary = summarize(full)
    assert {each.name: each.status for each in summary.trials[1:]} == {
        "random 1": "finished",
        "random 2": "stopped",
        "random 3": "infeasible",
        "guided 1": "finished",
        "guided 2": "failed",
        "guided 3": "unfinished",
    }
    assert [each.name for each in summary.company] == ["erfnet"]
    assert not summary.company[0].timing.within_budget
    assert summary.company[0].miou == 0.5


def test_the_winner_leads_the_leaderboard_and_appears_once(full: RunFolder) -> None:
    summary = summarize(full)
    assert summary.winner is not None
    assert (summary.winner.name, summary.winner.number, summary.winner.pruned) == ("guided 1", 5, False)
    assert [row.place for row in summary.leaderboard] == [
        "winner",
        "published, scaled",
        "published, own width",
        "best random",
    ]
    first = summary.leaderboard[0]
    assert (first.search_miou, first.miou, first.epochs) == (0.35, 0.6012, 6)
    assert first.timing.milliseconds == 9.77
    assert "9.77 ms" in headline(summary)
    assert "60.1% mIoU" in headline(summary)
    assert "budget 10ms: passed" in headline(summary)


def test_recorded_waiting_of_trainings_is_reported_with_advice(full: RunFolder) -> None:
    before = summarize(full)
    assert (before.waited_for_data, before.waited_for_lane) == (None, None)
    assert waiting_words(None, None) == ""
    folder = full.phase_path(full.trials()[0], "search")
    for epoch, waited in zip(read_progress(folder).history, (0.1, 0.2, 0.3), strict=True):
        append_epoch(folder, replace(epoch, waited_for_data=waited, waited_for_lane=0.01))
    summary = summarize(full)
    assert (summary.waited_for_data, summary.waited_for_lane) == (0.2, 0.01)
    assert waiting_words(0.2, 0.01) == (
        "Trainings spent 20.0 % of their time waiting for data and 1.0 % waiting for timings."
    )
    (told,) = set(summary.notes) - set(before.notes)
    assert told.startswith("20.0 % of the training time was spent waiting for data: ")


def test_recorded_costs_of_timing_are_reported(full: RunFolder) -> None:
    assert summarize(full).timings is None
    assert "timings" not in strict.plain(summarize(full))
    seconds = {"seed": (4.0,), "random": (2.0, 1.0), "guided": (1.0, 3.0, 2.0)}
    for trial in full.trials()[:3]:  # a scaled published network and two random ones
        measured = [
            Measured(architecture=trial.architecture, milliseconds=9.0, disturbed=False, seconds=each)
            for each in seconds[trial.origin]
        ]
        full.write_timed(trial.architecture, Timed(measured=tuple(measured), in_vain_seconds=0.5))
    write_text(full.root / SPENT, strict.dump(Spent(seconds=46.0)))
    summary = summarize(full)
    assert summary.timings == Timings(candidates=3, seconds=3.5, measurements=2, share=0.25)
    words = (
        "Timing a candidate took 3.5 s and 2 measurements in the median; these timings were 25.0 % of the run's time."
    )
    assert timing_words(summary.timings) == words
    assert leaderboard_text(full).splitlines()[-1] == words
    assert words in render(replace(summary, winner=None), [], goes_on=False).replace("&#39;", "'")


def test_random_and_guided_search_are_compared_at_the_same_cost(full: RunFolder, short: Short) -> None:
    effort = summarize(short(full)).effort
    assert (effort.random_trials, effort.draws, effort.guided_trials) == (2, 1, 3), "another was stopped"
    assert (effort.guided_cost, effort.compared) == (2.0, 1), "six epochs, and one draw to set against them"
    assert (effort.best_random_miou, effort.best_guided_miou) == (0.33, 0.35)
    (words,) = efforts(summarize(full))
    assert (
        "cost as much as 2.0 full trainings, more than the random draws. At an equal cost of 1 full training" in words
    )
    assert "Random draws that paused or failed are left out" in words


def test_random_draws_of_earlier_runs_count_if_they_had_the_same_budget(
    made: Any, architecture: Callable[[float], Architecture], latency: Callable[[float], Latency], short: Short
) -> None:
    """The best of two of the draws 0.2, 0.3 and 0.4 is 0.4 in two of three cases, and 0.3 in one."""
    made.trial(1, "random 1", "random", architecture(0.1), 9.0, (0.1, 0.1, 0.2))
    made.trial(2, "guided 1", "guided", architecture(0.2), 9.0, (0.1, 0.2, 0.35))
    made.trial(3, "guided 2", "guided", architecture(0.3), 9.0, (0.1, 0.2, 0.30))
    drawn = ((0.4, 0.3, 10.0), (0.5, 0.4, 10.0), (0.6, 0.9, 5.0), (0.7, 0.9, 0.0))
    found = [
        EarlierTrial(run="one", architecture=architecture(width), latency=latency(4.0), miou=miou,
                     drawn_for_milliseconds=budget)
        for width, miou, budget in drawn
    ]  # fmt: skip
    write_earlier(made.run, Earlier(trials=tuple(found)))
    effort = summarize(short(made.run)).effort
    assert (effort.draws, effort.earlier_draws, effort.compared) == (3, 2, 2)
    assert effort.best_random_miou == pytest.approx((0.4 * 2 + 0.3) / 3)
    assert effort.best_guided_miou == 0.35


def test_a_run_without_random_draws_has_no_control(made: Any, architecture: Callable[[float], Architecture]) -> None:
    made.trial(1, "guided 1", "guided", architecture(0.2), 9.0, (0.1, 0.2, 0.35))
    (words,) = efforts(summarize(made.run))
    assert words.startswith("There is no random control: no random draw was trained in full")


def test_proxies_are_compared_over_networks_with_both_figures(full: RunFolder) -> None:
    finish, multiply_adds, parameters = summarize(full).agreements
    assert (finish.points, finish.tau) == (3, None)  # seed, guided 1, company
    assert multiply_adds.points == parameters.points == 8
    assert parameters.tau is not None
    assert -1 <= parameters.tau <= 1


def test_rungs_are_compared_and_scores_of_low_rungs_are_no_final_scores(
    made: Any, architecture: Callable[[float], Architecture], short: Short
) -> None:
    """Four candidates go on from the first epoch to the third in nearly the same order; two random draws pause."""
    for number, (first, last) in enumerate(((0.1, 0.2), (0.2, 0.4), (0.3, 0.3), (0.4, 0.5)), 1):
        made.trial(
            number, f"guided {number}", "guided", architecture(0.05 * number), 9.0, (first, first, last), rungs=(1, 3)
        )
    made.trial(5, "random 1", "random", architecture(0.30), 9.0, (0.6,), rungs=(1,))
    made.trial(6, "random 2", "random", architecture(0.35), 9.0, (0.25, 0.2, 0.35), rungs=(1, 3))
    made.trial(7, "random 3", "random", architecture(0.40), 9.0, (0.15, 0.2), rungs=(1, 3))
    summary = summarize(short(made.run))
    between = summary.agreements[0]
    assert (between.proxy, between.truth) == ("mIoU after a schedule of 1 epoch", "mIoU after 3 epochs")
    assert between.points == 5
    assert between.tau == pytest.approx(0.4)
    statuses = {each.name: each.status for each in summary.trials}
    assert (statuses["random 1"], statuses["random 2"], statuses["random 3"]) == ("paused", "finished", "unfinished")
    (best,) = [row for row in summary.leaderboard if row.place == "best random"]
    assert (best.name, best.miou) == ("random 2", 0.35)
    effort = summary.effort
    assert (effort.random_trials, effort.draws, effort.guided_cost, effort.compared) == (3, 1, 4.0, 1)
    assert (effort.best_random_miou, effort.best_guided_miou) == (0.35, 0.2), "one whole training of each"


def test_a_training_scored_only_at_the_ends_of_schedules_has_the_same_figures(
    made: Any, architecture: Callable[[float], Architecture], short: Short
) -> None:
    """Candidates of equal scores, each once with a score after every epoch and once without those in between."""

    def trial(number: int, name: str, *search: float | None, finish: tuple[float | None, ...] = ()) -> None:
        rungs = (1, 3) if len(search) > 1 else (1,)
        made.trial(number, name, "random", architecture(0.1 + 0.05 * number), 9.0, search, finish, rungs=rungs)

    trial(1, "often", 0.2, 0.25, 0.3, finish=(0.35, 0.4, 0.5))
    trial(2, "rarely", 0.2, None, 0.3, finish=(None, None, 0.5))
    trial(3, "goes on", 0.2, None)
    trial(4, "is finished", 0.2, None, 0.3, finish=(None,))
    trial(5, "paused", 0.25)
    summary = summarize(short(made.run))
    often, rarely, goes_on, is_finished, paused = summary.trials
    for name in ("search_miou", "finish_miou", "miou", "epochs", "status", "rungs"):
        assert getattr(often, name) == getattr(rarely, name)
    assert (rarely.search, rarely.finish) == ((0.2, None, 0.3), (None, None, 0.5))
    assert rarely.curve == ((1, 0.2), (3, 0.3), (6, 0.5))
    assert (goes_on.status, goes_on.search_miou, goes_on.epochs) == ("unfinished", 0.2, 2), "the last that is known"
    assert (is_finished.status, is_finished.finish_miou, is_finished.miou) == ("unfinished", None, 0.3)
    assert (paused.status, paused.miou) == ("paused", 0.25)
    assert summary.agreements[0].points == 3, "the two ends of three trainings"
    assert summary.effort.draws == 3


def test_scores_of_the_encoder_alone_are_not_the_networks(
    made: Any, architecture: Callable[[float], Architecture], short: Short
) -> None:
    def trial(number: int, name: str, origin: str, search: tuple[float, ...], **options: Any) -> None:
        made.trial(number, name, origin, architecture(0.1 + 0.05 * number), 9.0, search, encoder=1, **options)

    trial(1, "random 1", "random", (0.9, 0.2, 0.3))
    trial(2, "random 2", "random", (0.95,))  # under way
    trial(3, "guided 1", "guided", (0.8, 0.3, 0.4))
    trial(4, "guided 2", "guided", (0.8, 0.3, 0.2), rungs=(2, 3))
    summary = summarize(short(made.run))
    found = {each.name: each for each in summary.trials}
    assert (found["random 1"].search, found["random 1"].epochs) == ((None, 0.2, 0.3), 3)
    assert (found["random 2"].search, found["random 2"].miou) == ((None,), None)
    assert (summary.effort.draws, summary.effort.compared) == (1, 1)
    assert (summary.effort.best_random_miou, summary.effort.best_guided_miou) == (0.3, 0.4)
    assert strict.parse(strict.dump(summary), Summary, "report.yaml") == summary
    drawn = str(curves(summary))
    assert "random 1" in drawn
    assert "random 2" not in drawn, "it has no score yet"
    assert pareto(summary)


def test_disturbed_measurements_are_noted(full: RunFolder) -> None:
    assert any("1 of 8" in note for note in summarize(full).notes)


def test_a_changed_budget_judges_the_same_measurements_anew(full: RunFolder) -> None:
    full.write_study(replace(full.study(), budget="9.05ms"))
    summary = summarize(full)
    assert [each.name for each in summary.trials if each.timing.within_budget] == ["random 1"]
    assert any("now asks for 9.05ms" in note for note in summary.notes)


def test_latencies_are_shown_in_the_statistic_of_the_budget(full: RunFolder) -> None:
    full.write_study(replace(full.study(), budget="10ms p90"))
    timing = summarize(full).trials[1].timing
    assert timing.milliseconds == pytest.approx(9.9)
    assert timing.p50_milliseconds == 9.0
    assert timing.within_budget


def test_a_pruned_winner_is_named_after_its_original(made: Any, architecture: Callable[[float], Architecture]) -> None:
    from space import groups

    whole = architecture(0.3)
    made.trial(1, "guided 1", "guided", whole, 12.0, (0.1, 0.2, 0.3))
    name, size = next((name, size) for name, size in groups(whole).items() if size > 1)
    made.winner(replace(whole, channels={name: size - 1}), 9.0, 0.28)
    summary = summarize(made.run)
    assert summary.winner is not None
    assert summary.winner.name == "guided 1, pruned"
    assert summary.winner.pruned
    assert "Pruned" in summary.winner.description
    assert [row.place for row in summary.leaderboard] == ["winner"]  # its original is over the budget


def test_a_pruned_candidate_that_wins_is_shown_beside_its_original(
    made: Any, architecture: Callable[[float], Architecture]
) -> None:
    from space import groups

    whole = architecture(0.3)
    name, size = next((name, size) for name, size in groups(whole).items() if size > 1)
    cut, finish = replace(whole, channels={name: size - 1}), (0.2, 0.3, 0.35)
    made.trial(1, "erfnet", "company", whole, 30.0, (0.1, 0.2, 0.3), (0.3, 0.35, 0.4))
    made.trial(1, "guided 1", "guided", architecture(0.2), 9.0, (0.1, 0.2, 0.3), (0.3, 0.3, 0.3))
    made.trial(2, "erfnet, pruned", "pruned", cut, 9.5, (), finish, parent="erfnet")
    made.winner(cut, 9.4, 0.35)
    summary = summarize(made.run)
    assert summary.winner is not None
    assert (summary.winner.name, summary.winner.number) == ("erfnet, pruned", 2)
    assert [row.place for row in summary.leaderboard] == ["winner", "published, own width", "best guided"]
    assert 'class="cut"' in "".join(pareto(summary))


def test_the_figures_can_be_read_back(full: RunFolder) -> None:
    summary = summarize(full)
    assert strict.parse(strict.dump(summary), Summary, "report.yaml") == summary


def test_an_empty_run_has_no_winner(made: Any) -> None:
    summary = summarize(made.run)
    assert summary.winner is None
    assert summary.leaderboard == ()
    assert "No winner yet for 10ms" in headline(summary)


def test_the_leaderboard_fits_a_terminal(full: RunFolder) -> None:
    lines = leaderboard_text(full).splitlines()
    assert len(lines) == 2 + 4
    assert "guided 1" in lines[2]
    assert "60.1" in lines[2]
    assert "3.00x" in next(line for line in lines if "own width" in line)
