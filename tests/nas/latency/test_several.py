"""A latency pooled from several processes, and its interval."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from nas.latency.budget import MOST_PROCESSES, SETTLING_PROCESSES, Budget, settling
from nas.latency.record import Latency
from nas.latency.several import PROCESSES, anchored, measure_in_processes, pooled
from nas.latency.target import Target
from space import strict


def found(ratio: float, *, anchor: float = 5.8, flagged: tuple[str, ...] = (), samples: int = 40) -> Latency:
    """The latency that one process found, with an interval of 1.5 % to each side."""
    return Latency(
        p50_milliseconds=ratio * anchor, p90_milliseconds=1.1 * ratio * anchor, p99_milliseconds=1.3 * ratio * anchor,
        ci_low_milliseconds=0.985 * ratio * anchor, ci_high_milliseconds=1.015 * ratio * anchor, samples=samples,
        ratio=ratio, ratio_low=0.985 * ratio, ratio_high=1.015 * ratio, reference_milliseconds=anchor,
        raw_p50_milliseconds=ratio * anchor, target="onnxruntime@cpu:1", height=180, width=240, scope="network",
        set_aside=5, blocks=((ratio * anchor, anchor),), flagged=flagged, environment={"threads": "1"},
    )  # fmt: skip


def test_both_levels_of_speed_are_inside_the_interval() -> None:
    latency = pooled([found(0.80), found(0.92), found(0.86)])
    assert latency.p50_milliseconds == pytest.approx(0.86 * 5.8)
    assert latency.interval() == pytest.approx((0.985 * 0.80 * 5.8, 1.015 * 0.92 * 5.8))
    assert (latency.ratio_low, latency.ratio_high) == pytest.approx((0.985 * 0.80, 1.015 * 0.92))
    assert latency.p99_milliseconds == pytest.approx(1.3 * 0.92 * 5.8)
    assert latency.processes_milliseconds == pytest.approx((0.80 * 5.8, 0.92 * 5.8, 0.86 * 5.8))
    assert (latency.samples, latency.set_aside, len(latency.blocks)) == (120, 15, 3)
    assert strict.parse(strict.dump(latency), Latency, "a certificate") == latency


def test_a_budget_between_two_levels_of_speed_does_not_pass() -> None:
    budget = Budget.parse("5ms")
    assert budget.verdict(found(0.80)) == "PASS"
    assert budget.verdict(found(0.92)) == "FAIL"
    assert budget.verdict(pooled([found(0.80), found(0.92), found(0.81)])) == "UNSURE"


def test_a_disturbed_process_does_not_count_beside_two_quiet_ones() -> None:
    latency = pooled([found(0.80), found(1.4, flagged=("a busy host",), samples=30), found(0.82)])
    assert latency.flagged == ()
    assert latency.p50_milliseconds == pytest.approx(0.82 * 5.8)  # the slower of two
    assert latency.ci_high_milliseconds == pytest.approx(1.015 * 0.82 * 5.8)
    assert len(latency.processes_milliseconds) == 2
    assert (latency.samples, latency.set_aside) == (80, 3 * 5 + 30)


def test_all_processes_count_with_their_reasons_if_most_were_disturbed() -> None:
    latency = pooled([found(0.80, flagged=("a",)), found(1.4, flagged=("b", "a")), found(0.82)])
    assert latency.flagged == ("a", "b")
    assert latency.p50_milliseconds == pytest.approx(0.82 * 5.8)
    assert latency.ci_high_milliseconds == pytest.approx(1.015 * 1.4 * 5.8)


def test_a_new_anchor_counts_for_all_processes() -> None:
    latency = pooled([found(0.80, anchor=5.8), found(0.82, anchor=5.0), found(0.81, anchor=5.0)])
    assert latency.reference_milliseconds == 5.0
    assert latency.processes_milliseconds == pytest.approx((0.80 * 5.0, 0.82 * 5.0, 0.81 * 5.0))
    assert latency.interval() == pytest.approx((0.985 * 0.80 * 5.0, 1.015 * 0.82 * 5.0))


def test_the_ratio_by_a_new_anchor_stays_inside_its_interval() -> None:
    before = dataclasses.replace(found(0.8, anchor=5.0), corrected=0.93, blocks=((4.0, 6.0),))
    after = anchored(before, 5.8)
    assert 0.93 < after.corrected < 1
    for name in ("ratio", "ratio_low", "ratio_high", "p50_milliseconds", "ci_low_milliseconds"):
        anew = (5.8 / 5.0 if "milliseconds" in name else 1) * after.corrected / 0.93
        assert getattr(after, name) == pytest.approx(anew * getattr(before, name)), name


def test_the_latency_of_a_single_process_is_its_own() -> None:
    assert pooled([found(0.8)]) == found(0.8)


@pytest.mark.parametrize(("target", "processes"), [("onnxruntime@cpu:1", PROCESSES), ("torch@cuda:0", 1)])
def test_a_gpu_is_timed_by_one_process_and_a_cpu_by_several(target: str, processes: int) -> None:
    levels: Iterator[float] = iter((0.80, 0.81, 0.82, 0.83))
    latency = measure_in_processes(lambda: found(next(levels)), Target.parse(target))
    assert next(levels) == pytest.approx(0.80 + 0.01 * processes)
    assert latency.p50_milliseconds == pytest.approx(5.8 * (0.81 if processes == 3 else 0.80))


@pytest.mark.parametrize(
    ("levels", "processes", "verdict"),
    [
        ((0.80, 0.81, 0.88), 8, "PASS"),  # one of eight is slow, and the outermost do not count
        ((0.80, 0.81, 0.88, 0.81, 0.88), 9, "UNSURE"),  # two of nine are
        ((0.85, 0.86, 0.87), 3, "UNSURE"),  # the median one by itself leaves it open, whatever others measure
        ((0.80, 0.81, 0.82), 3, "PASS"),
    ],
)
def test_more_processes_are_timed_only_while_they_may_settle_a_verdict(
    levels: tuple[float, ...], processes: int, verdict: str
) -> None:
    budget = Budget.parse("5ms")
    every = iter((*levels, *(0.81 for _ in range(SETTLING_PROCESSES))))
    latency = measure_in_processes(
        lambda: found(next(every)),
        Target.parse("onnxruntime@cpu:1"),
        leaves_open=lambda each: budget.verdict(each) == "UNSURE",
    )
    assert (len(latency.processes_milliseconds), budget.verdict(latency)) == (processes, verdict)


@pytest.mark.parametrize(("timed", "advised"), [(2, SETTLING_PROCESSES), (3, 9), (9, MOST_PROCESSES)])
def test_the_advice_for_an_open_verdict_is_a_number_of_processes_that_can_be_timed(timed: int, advised: int) -> None:
    latency = pooled([found(0.80 if each % 2 else 0.90) for each in range(timed)])
    assert f"--processes {advised} " in settling(latency, Budget.parse("5ms"), 11)


def test_two_quiet_processes_settle_what_disturbed_ones_left_open() -> None:
    budget = Budget.parse("5ms")
    disturbed = [found(level, flagged=("a busy host",)) for level in (0.82, 0.86, 0.95)]
    every = iter((*disturbed, found(0.81), found(0.80)))
    latency = measure_in_processes(
        lambda: next(every),
        Target.parse("onnxruntime@cpu:1"),
        leaves_open=lambda each: budget.verdict(each) == "UNSURE",
    )
    assert (latency.flagged, budget.verdict(latency)) == ((), "PASS")


def test_the_pooled_interval_is_no_narrower_than_that_of_one_process() -> None:
    one = found(0.8)
    assert pooled([one, dataclasses.replace(one), dataclasses.replace(one)]).interval() == one.interval()


def test_the_outermost_of_many_processes_do_not_widen_the_interval() -> None:
    levels = (0.80, 0.81, 0.82, 0.83, 0.84, 0.85, 0.95)
    seven = pooled([found(each) for each in levels])
    assert seven.ci_high_milliseconds == pytest.approx(1.015 * 0.95 * 5.8)
    nine = pooled([found(each) for each in (*levels, 0.83, 0.83)])
    assert nine.interval() == pytest.approx((0.985 * 0.81 * 5.8, 1.015 * 0.85 * 5.8))
    assert (nine.ratio_low, nine.ratio_high) == pytest.approx((0.985 * 0.81, 1.015 * 0.85))
    assert len(nine.processes_milliseconds) == 9
