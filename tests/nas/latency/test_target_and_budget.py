"""Targets, budgets and latencies: their texts, their comparison, and refused texts."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from nas.errors import TargetError
from nas.latency.budget import Budget, Budgets
from nas.latency.record import Latency
from nas.latency.target import Target
from space import strict
from space.errors import BudgetError, UserError


def latency(**changes: object) -> Latency:
    record = Latency(
        p50_milliseconds=9.0,
        p90_milliseconds=9.5,
        p99_milliseconds=12.0,
        ci_low_milliseconds=8.9,
        ci_high_milliseconds=9.1,
        samples=40,
        ratio=1.5,
        ratio_low=1.48,
        ratio_high=1.52,
        reference_milliseconds=6.0,
        raw_p50_milliseconds=9.3,
        target="onnxruntime@cpu",
        height=180,
        width=240,
        scope="network",
        flagged=("busy",),
        environment={"threads": "2"},
    )
    return dataclasses.replace(record, **changes)


@pytest.mark.parametrize(
    "text",
    [
        "onnxruntime@cpu",
        "onnxruntime@cpu:1",
        "torch:fp16@cuda:0",
        "cudagraph:fp16@cuda:3",
        "tensorrt:int8@cuda:0",
        "onnxruntime@ssh:jetson",
        "onnxruntime@ssh:me@192.0.2.7/cpu:2",
        "cudagraph:fp16@ssh:box.example.org/cuda:1",
    ],
)
def test_a_target_prints_the_text_that_it_was_parsed_from(text: str) -> None:
    assert str(Target.parse(text)) == text


def test_a_target_knows_its_parts() -> None:
    assert Target.parse("torch@cpu:2") == Target(runtime="torch", precision="fp32", device="cpu", threads=2)
    assert Target.parse("torch:fp16@cuda") == Target(runtime="torch", precision="fp16", device="cuda:0")
    assert str(Target.parse(" torch:fp32@cpu ")) == "torch@cpu"


def test_a_target_on_another_host_is_a_local_target_of_that_host() -> None:
    target = Target.parse("torch:fp16@ssh:jetson/cuda:0")
    assert (target.host, target.on_cuda, str(target.on_its_host())) == ("jetson", True, "torch:fp16@cuda:0")
    assert Target.parse("torch@ssh:jetson/cpu") == Target.parse("torch@ssh:jetson")


def test_threads_default_to_all_available_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert Target.parse("torch@cpu").thread_count() == cores
    assert Target.parse("torch@cpu:1").thread_count() == 1
    with pytest.raises(TargetError, match=rf"but {cores} cores? (is|are) available here; ask for at most {cores}"):
        Target.parse(f"torch@cpu:{cores + 1}").thread_count()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "torch",
        "@cpu",
        "torch@",
        "torch:@cpu",
        "torch@cpu:0",
        "torch@cpu:-1",
        "torch@cpu:x",
        "torch@cpu:",
        "torch@cuda:0:1",
        "TORCH@cpu",
        "to rch@cpu",
        "torch@@cpu",
        "torch:fp32:fp16@cpu",
        "../x@cpu",
        "torch@cpu:²",
        "torch@ssh:",
        "torch@ssh:/cpu",
        "torch@ssh:-oProxyCommand=x",
        "torch@ssh:host;ls",
        "torch@ssh:host/",
        "torch@ssh:host/cpu:x",
    ],
)
def test_texts_that_are_no_target_are_refused(text: str) -> None:
    with pytest.raises(TargetError, match="expected"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("text", "hint"), [("torch:fp61@cpu", "fp16"), ("torch@cpo", "cpu"), ("torch@cudda:0", "cuda")]
)
def test_a_misspelt_target_gets_the_nearest_name(text: str, hint: str) -> None:
    with pytest.raises(TargetError, match=f"did you mean '{hint}'"):
        Target.parse(text)


@pytest.mark.parametrize(
    ("text", "milliseconds", "statistic"),
    [
        ("10ms", 10.0, "p50"),
        ("10 ms", 10.0, "p50"),
        (" 0.5ms ", 0.5, "p50"),
        (".5MS", 0.5, "p50"),
        ("100fps", 10.0, "p50"),
        ("30 FPS p99", 1000 / 30, "p99"),
        ("1e1ms p90", 10.0, "p90"),
    ],
)
def test_budgets_are_times_or_rates(text: str, milliseconds: float, statistic: str) -> None:
    budget = Budget.parse(text)
    assert budget.milliseconds == pytest.approx(milliseconds)
    assert budget.statistic == statistic
    assert Budget.parse(str(budget)) == budget


def test_a_budget_prints_in_short_form() -> None:
    assert str(Budget.parse("10.0 ms")) == "10ms"
    assert str(Budget(milliseconds=2.5, statistic="p90")) == "2.5ms p90"


@pytest.mark.parametrize(
    "text",
    [
        "0ms",
        "-3ms",
        "10 parsecs",
        "nan",
        "nanms",
        "infms",
        "1e999ms",
        "0fps",
        "",
        "ms",
        "10",
        "10,5ms",
        "10ms10ms",
        "0x10ms",
        "1e-400ms",
        "9" * 400 + "ms",
        "1e-320fps",
    ],
)
def test_texts_that_are_no_budget_are_refused_with_examples(text: str) -> None:
    with pytest.raises(BudgetError, match="such as 10ms"):
        Budget.parse(text)


def test_an_unknown_statistic_is_refused() -> None:
    with pytest.raises(BudgetError, match="did you mean 'p99'"):
        Budget.parse("10ms p999")


def test_a_budget_admits_by_its_statistic() -> None:
    measured = latency()
    assert Budget.parse("9ms").admits(measured)
    assert not Budget.parse("8.99ms").admits(measured)
    assert not Budget.parse("9.4ms p90").admits(measured)
    assert Budget.parse("12ms p99").admits(measured)


@pytest.mark.parametrize(
    ("budget", "low", "high", "verdict"),
    [
        ("10ms", 8.9, 9.9, "PASS"),
        ("10ms", 8.9, 10.0, "PASS"),
        ("10ms", 8.9, 10.1, "UNSURE"),
        ("9ms", 8.9, 10.1, "UNSURE"),
        ("8.9ms", 8.9, 10.1, "UNSURE"),
        ("8.8ms", 8.9, 10.1, "FAIL"),
        ("100fps", 8.9, 9.9, "PASS"),
        ("10ms p90", 8.9, 9.2, "PASS"),  # p90 is 9.5 ms, as unsure as the median
        ("10ms p90", 8.9, 9.5, "UNSURE"),
        ("9.3ms p90", 8.9, 9.0, "FAIL"),
        ("11ms p99", 8.0, 9.9, "UNSURE"),
        ("8.5ms", 9.5, 9.9, "FAIL"),  # a median outside its interval: both count
        ("9.2ms", 9.5, 9.9, "UNSURE"),
    ],
)
def test_a_verdict_is_that_of_the_whole_interval(budget: str, low: float, high: float, verdict: str) -> None:
    measured = latency(ci_low_milliseconds=low, ci_high_milliseconds=high, flagged=())
    assert Budget.parse(budget).verdict(measured) == verdict
    assert Budget.parse(budget).refutes(measured) == (verdict == "FAIL")


def test_a_busy_machine_refutes_nothing() -> None:
    measured = latency(flagged=("other processes used 69% of the timed cores",))
    assert Budget.parse("1ms").verdict(measured) == "FAIL"
    assert not Budget.parse("1ms").refutes(measured)


def test_a_latency_survives_its_yaml_to_the_last_bit() -> None:
    measured = latency(
        ratio=0.1 + 0.2, ratio_low=1e-7, ratio_high=1e22, blocks=((1 / 3, 6.0), (1e-5, 2.0)), flagged=("a: 'b' # c",)
    )
    read = strict.parse(strict.dump(measured), Latency, "certificate.yaml")
    assert read == measured
    assert len({measured, read}) == 1


PROTOCOL_1 = """\
p50_milliseconds: 9.0
p90_milliseconds: 9.5
p99_milliseconds: 12
ci_low_milliseconds: 8.9
ci_high_milliseconds: 9.1
samples: 40
ratio: 1.5
ratio_low: 1.48
ratio_high: 1.52
reference_milliseconds: 6.0
raw_p50_milliseconds: 9.3
target: onnxruntime@cpu
height: 180
width: 240
scope: network
batch: 1
set_aside: 0
flagged: [busy]
environment: {threads: '2'}
"""


def test_a_record_of_protocol_1_can_be_read() -> None:
    read = strict.parse(PROTOCOL_1, Latency, "certificate.yaml")
    assert read == latency()
    assert read.blocks == ()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ratio": None}, "missing ratio"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"ratio": "1.5"}, "ratio: expected a number"),
        ({"samples": 2.5}, "samples: expected a whole number"),
        ({"flagged": "busy"}, "flagged: expected a list"),
        ({"blocks": [[1.0]]}, "expected 2 values"),
        ({"p50_milliseconds": float("nan")}, "p50_milliseconds: expected a number"),
        ({"p50_milliseconds": 10.0}, "expected p50 <= p90 <= p99"),
        ({"height": 0}, "expected height of a latency to be positive"),
        ({"ci_low_milliseconds": 0}, "expected ci_low_milliseconds of a latency to be positive"),
        ({"set_aside": -1}, "expected set_aside of a latency to be 0 or more, got -1; measure again"),
    ],
)
def test_a_damaged_latency_is_refused(change: dict[str, object], complaint: str) -> None:
    values = {key: value for key, value in {**strict.plain(latency()), **change}.items() if value is not None}
    with pytest.raises(UserError, match=complaint):
        strict.parse(strict.dump(values), Latency, "certificate.yaml")


def test_a_latency_has_its_own_copy_of_the_environment() -> None:
    environment = {"threads": "2"}
    measured = latency(environment=environment)
    environment["threads"] = "4"
    assert measured.environment == {"threads": "2"}


def test_a_latency_prints_its_number_and_its_flags() -> None:
    assert str(latency(flagged=())) == "9.00 ms +-0.10 on onnxruntime@cpu at 180x240"
    assert "flagged: busy" in str(latency())


def test_targets_budgets_and_latencies_do_not_load_torch() -> None:
    code = "import sys, nas.latency.target, nas.latency.record, nas.latency; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_several_budgets_are_sorted_and_name_folders() -> None:
    budgets = Budgets.parse(["20ms", "100fps", "30fps"])
    assert [budget.name for budget in budgets] == ["10ms", "20ms", "33.3333ms"]
    assert budgets.largest.milliseconds == pytest.approx(1000 / 30)
    assert budgets.of(20.0) == Budget.parse("20ms")
    assert budgets.of(15.0) == budgets.largest
    assert [each.name for each in Budgets.parse(["9ms p90", "5ms p90"])] == ["5ms-p90", "9ms-p90"]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "expected a budget, got none"),
        (["10ms", "100fps"], "expected budgets that differ, got 10ms twice"),
        (["10ms", "20ms p90"], "expected budgets of one statistic, got 10ms, 20ms p90"),
        (["10ms", "20"], "cannot read '20' as a budget"),
    ],
)
def test_budgets_that_do_not_go_together_are_refused(texts: list[str], said: str) -> None:
    with pytest.raises(BudgetError, match=said):
        Budgets.parse(texts)
