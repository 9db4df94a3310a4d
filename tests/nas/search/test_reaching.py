"""Budgets that a search refuses before any training, and the budgets of a frontier, on an invented machine."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

import pytest

import space
from nas.latency.budget import Budget
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.runs.unreached import ask_again, unreached
from nas.search.engine import _on_frontier, _require_reachable
from nas.search.measure.narrowest import LEAST_RATIO, MOST_BUDGETS, Narrowest, frontier
from nas.search.search import Candidate, Search
from nas.terminal import ProgressLine
from space import Architecture, BudgetError

BUSY = ("other processes used 69% of the timed cores", "the median is known only to within 80% after 25 pairs")
Invented = Callable[[float], Latency]


def between(latency: Latency, low: float, high: float, flagged: tuple[str, ...] = ()) -> Latency:
    return replace(latency, ci_low_milliseconds=low, ci_high_milliseconds=high, flagged=flagged)


@dataclass
class Machine:
    """A machine that gives the prepared answers, one for each round, and then repeats the last one."""

    answers: list[Latency]
    rounds: int = 0

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        raise AssertionError("they take turns")

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        answer = self.answers[min(self.rounds, len(self.answers) - 1)]
        self.rounds += 1
        return [answer for _ in architectures]


def asking(search: Search, *budgets: str) -> Search:
    return replace(search, study=search.study.asking(budgets))


def require_reachable(search: Search, machine: Machine) -> None:
    _require_reachable(search, Narrowest(machine, search.quick, search.console.progress))


def test_a_budget_below_the_surely_lowest_latency_is_refused(asked: Search, invented: Invented) -> None:
    with pytest.raises(BudgetError, match=r"the narrowest networks of the space take 12.45 ms here; raise the budget"):
        require_reachable(asked, Machine([invented(12.45)]))


def test_a_resumed_run_is_not_timed_for_budgets_with_candidates(asked: Search, invented: Invented) -> None:
    """Candidates for a budget count whether they are inside it or not."""
    candidate = Candidate(name="random 1", origin="random", architecture=space.load("ndnet29-fcn32"))
    asked.run.write_trial(asked.trial(1, candidate, invented(10.5)))
    machine = Machine([invented(12.45)])
    require_reachable(asked, machine)
    assert machine.rounds == 0
    with pytest.raises(BudgetError, match=r"expected a budget that .* can meet, got 5ms"):
        require_reachable(asking(asked, "5ms"), machine)
    require_reachable(asking(asked, "20ms"), machine)


def test_a_busy_machine_is_no_verdict_on_a_budget(asked: Search, invented: Invented) -> None:
    machine = Machine([replace(between(invented(12.45), 4.15, 24.9, BUSY), target="onnxruntime@cpu")])
    with pytest.raises(BudgetError, match="quiet enough to tell whether onnxruntime@cpu can meet 10ms") as told:
        require_reachable(asked, machine)
    assert machine.rounds == 2
    assert BUSY[0] in str(told.value)
    assert "wait until" in str(told.value)
    assert "--patience 5min" in str(told.value)
    assert "--target onnxruntime@cpu:1" in str(told.value)
    assert "raise the budget" not in str(told.value)


def test_a_flagged_latency_gives_no_verdict_whatever_its_interval(asked: Search, invented: Invented) -> None:
    with pytest.raises(BudgetError, match="machine was busy"):
        require_reachable(asked, Machine([replace(invented(12.45), flagged=BUSY)]))


@pytest.mark.parametrize("low", [8.0, 9.9])
def test_a_search_goes_on_if_a_network_may_be_inside_the_budget(low: float, asked: Search, invented: Invented) -> None:
    machine = Machine([between(invented(10.1), low, 11.0)])
    require_reachable(asked, machine)
    assert machine.rounds == 1


def test_a_second_timing_on_a_quiet_machine_counts(asked: Search, invented: Invented) -> None:
    machine = Machine([replace(invented(12.45), flagged=BUSY), invented(6.0)])
    require_reachable(asked, machine)
    assert machine.rounds == 2


def test_an_unreachable_budget_is_reported_and_the_others_go_on(
    asked: Search, invented: Invented, capsys: pytest.CaptureFixture[str]
) -> None:
    several = asking(asked, "1ms", "5ms", "10ms")
    require_reachable(several, Machine([invented(2.0)]))
    told = capsys.readouterr().out
    assert "1ms is given up, the others go on" in told
    assert "the narrowest networks of the space take 2.00 ms here" in told
    assert list(map(str, several.budgets)) == ["5ms", "10ms"]
    assert several.study.asked.each[0] == Budget.parse("1ms"), "it is still what was asked for"
    ask_again(several.run, [Budget.parse("1ms")])
    assert len(several.budgets) == 3


def test_unreachable_budgets_alone_are_refused(asked: Search, invented: Invented) -> None:
    with pytest.raises(BudgetError, match="can meet, got 10ms; the narrowest networks of the space take 20"):
        require_reachable(asking(asked, "1ms", "10ms"), Machine([invented(20.0)]))
    assert unreached(asked.run) == {}


def test_no_budget_is_given_up_on_a_busy_machine(asked: Search, invented: Invented) -> None:
    several = asking(asked, "1ms", "10ms")
    require_reachable(several, Machine([between(invented(2.0), 0.5, 3.0, ("others computed",))]))
    assert len(several.budgets) == 2


def test_the_narrowest_networks_are_timed_once_for_a_frontier(asked: Search, invented: Invented) -> None:
    machine = Machine([invented(2.0)])
    narrowest = Narrowest(machine, asked.quick, asked.console.progress)
    several = _on_frontier(asked, narrowest)
    _require_reachable(several, narrowest)
    assert machine.rounds == 1
    assert several.study.budgets == asked.run.study().budgets == ("2.8ms", "3.8ms", "5.3ms", "7.2ms", "10ms")


def test_progress_is_printed_while_the_narrowest_networks_are_timed(invented: Invented) -> None:
    said: SimpleQueue[str] = SimpleQueue()

    class Slow(Machine):
        def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
            assert re.match(r"the narrowest networks timed in turns: \d+ s so far", said.get(timeout=30))
            return super().measure_together(architectures)

    progress = ProgressLine(tell=said.put, every_seconds=0.001)
    assert len(Narrowest(Slow([invented(6.0)]), 0.03, progress).latencies()) == 3


def test_the_console_is_kept_when_the_budgets_of_a_frontier_are_found(
    asked: Search, invented: Invented, capsys: pytest.CaptureFixture[str]
) -> None:
    several = _on_frontier(asked, Narrowest(Machine([invented(2.0)]), asked.quick, asked.console.progress))
    assert several.console is asked.console, "its clock does not begin again"
    candidate = Candidate(name="erfnet", origin="company", architecture=space.load("ndnet29-fcn32"))
    several.console.published(several.trial(1, candidate, invented(5.0)))
    assert capsys.readouterr().out.endswith("  inside 5.3ms\n")


@pytest.mark.parametrize(
    ("fastest", "expected"),
    [
        (0.2, ["0.44ms", "0.96ms", "2.1ms", "4.6ms", "10ms"]),
        (6.0, ["7.7ms", "10ms"]),
    ],
)
def test_a_frontier_reaches_from_the_fastest_network_to_the_budget(fastest: float, expected: list[str]) -> None:
    found = frontier(Budget.parse("10ms"), fastest)
    assert list(map(str, found)) == expected
    assert len(found) <= MOST_BUDGETS
    assert found.each[0].milliseconds > fastest
    assert all(each.statistic == "p90" for each in frontier(Budget.parse("10ms p90"), fastest))


@pytest.mark.parametrize("fastest", [None, 10.0 / LEAST_RATIO, 12.0])
def test_a_frontier_without_room_below_the_budget_is_refused(fastest: float | None) -> None:
    with pytest.raises(BudgetError, match="expected a budget with room for smaller ones below it, got 10ms"):
        frontier(Budget.parse("10ms"), fastest)
