"""`nas profile`: estimates of a space, reachability of budgets, and forecasts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import space
from nas.data import DataSpec
from nas.latency.estimates.table import LatencyTable
from nas.search.measure.reachability import Reach, Reachability, explore, forecast, knobs
from nas.search.propose.fill import NARROWEST
from nas.study import SearchPlan, Study
from nas.training import Variant, load_recipe
from space import BudgetError
from space.scale import scale_width

TINY_SPACE: dict[str, tuple[Any, ...]] = {
    "stages": (2,),
    "block": ("nonbt",),
    "stem.kind": ("conv_pool",),
    "stem.width": (8,),
    "stage.width": (16, 24),
    "stage.depth": (1, 2, 3),
    "decoder": ("none",),
    "detail": ("none",),
    "context": ("none",),
}


@pytest.fixture
def tiny() -> Study:
    """A study on a space of tiny networks."""
    return Study(
        data=DataSpec(size=(64, 96), train_images=8, validation_images=4),
        budget="10ms",
        recipe=load_recipe("quick"),
        target="torch@cpu:1",
        space=TINY_SPACE,
        search=SearchPlan(seeds=("ndnet29-fcn32",)),
    )


@pytest.fixture
def table() -> LatencyTable:
    """An invented device: a millisecond for every two million multiply-adds and for every twenty layers."""
    return LatencyTable(
        target="torch@cpu:1", height=64, width=96, milliseconds={}, networks=10, seconds=2.0, error=0.05,
        unit_milliseconds={"multiply_adds": 5e-7, "count": 0.05}, environment={},
    )  # fmt: skip


def reachability_of(study: Study, budget: str, table: LatencyTable, samples: int) -> Reachability:
    estimate = partial(table.estimate, num_classes=3)
    return explore(replace(study, budget=budget), estimate, samples=samples, seed=0)


def test_each_network_is_estimated_at_its_own_width_and_at_both_extremes(tiny: Study, table: LatencyTable) -> None:
    found = reachability_of(tiny, "50ms", table, 20)
    assert [each.name for each in found.published] == ["ndnet29-fcn32"]
    assert len({each.architecture.key for each in found.draws}) > 1
    for each in found.every:
        assert each.narrowest == table.estimate(scale_width(each.architecture, NARROWEST), 3)
        assert each.own == table.estimate(each.architecture, 3)
        assert each.own < each.widest
    assert found.lowest.narrowest == min(each.narrowest for each in found.every)
    assert found.fillable(found.study.asked.largest) == 1
    found.require()


@pytest.mark.parametrize(("budget", "word"), [("0.1ms", "narrowest"), ("1000000ms", "width")])
def test_a_budget_outside_the_reachable_range_is_refused_with_its_end(
    tiny: Study, table: LatencyTable, budget: str, word: str
) -> None:
    found = reachability_of(tiny, budget, table, 5)
    assert found.fillable(found.study.asked.largest) == 0
    end = found.lowest.narrowest if word == "narrowest" else found.highest.widest
    with pytest.raises(BudgetError, match=rf"{word}, is estimated at {end:.2f} ms"):
        found.require()


def test_a_profile_answers_for_each_of_several_budgets(tiny: Study, table: LatencyTable) -> None:
    estimate = partial(table.estimate, num_classes=3)
    asked = tiny.asking(["50ms", "3ms", "0.1ms"])
    found = explore(asked, estimate, samples=20, seed=0)
    low, middle, high = asked.asked
    assert found.refusal(low) is not None
    assert found.refusal(middle) is None
    assert found.refusal(high) is None
    found.require()
    for budget in (low, middle, high):
        alone = reachability_of(tiny, str(budget), table, 20)
        assert found.fillable(budget) == alone.fillable(budget)
        told, known = ([each.verdict(budget.milliseconds) for each in of.every] for of in (found, alone))
        assert told == known
    hopeless = explore(tiny.asking(["0.1ms", "0.2ms"]), estimate, samples=5, seed=0)
    with pytest.raises(BudgetError, match=r"got 0\.2ms"):
        hopeless.require()


def test_the_effect_of_a_choice_is_not_that_of_its_company() -> None:
    """The block fpl doubles latency; prelu, which mostly comes with fpl, has no effect."""
    architecture = space.load("ndnet29-fcn32")
    draws = [
        Reach(
            name="draw",
            architecture=architecture,
            genotype={"block": block, "activation": activation, "stages": 2},
            own=10.0 if block == "fpl" else 5.0,
            narrowest=1.0,
            widest=100.0,
        )
        for block, activation, count in (
            ("fpl", "prelu", 300), ("fpl", "relu", 100), ("nonbt", "prelu", 100), ("nonbt", "relu", 300),
        )
        for _ in range(count)
    ]  # fmt: skip
    found = knobs(draws)
    assert [knob.axis for knob in found] == ["block", "activation"]
    assert [value for value, _, _ in found[0].factors] == ["nonbt", "fpl"]
    assert found[0].spread == pytest.approx(2, rel=0.02)
    assert found[1].spread == pytest.approx(1, abs=0.02)
    assert knobs(draws[:3]) == ()


def test_the_forecast_counts_every_epoch_that_is_planned(tiny: Study) -> None:
    plan = replace(tiny.search, random_trials=3, guided_trials=6, finalists=2, finish_epochs=5, company=("erfnet",))
    study = replace(tiny, search=plan, recipe=replace(tiny.recipe, epochs=2, batch_size=4))
    found = forecast(study, 41, 0.5, 3.0)
    pruned = 1  # one of two, since there is no more company
    assert found.training_seconds == ((1 + 3 + 6 + 1) * 2 + (2 + 1 + pruned) * 5) * 10 * 0.5
    assert found.candidates == 1 + 3 + 6
    assert found.measuring_seconds == (10 * 4 + 1) * 3.0
    several = forecast(study.asking(["10ms", "20ms", "30ms", "40ms"]), 41, 0.5, 3.0)
    assert several.candidates == 4 * (1 + 1 + 2), "each budget has the seeds and its share of the others"
    assert several.training_seconds == ((16 + 1) * 2 + (4 * (2 + pruned) + 1) * 5) * 10 * 0.5
    recipes = (Variant(), Variant(ema_decay=0.9), Variant(epochs=9))
    tries = forecast(replace(study, search=replace(plan, finish_recipes=recipes)), 41, 0.5, 3.0)
    finished, tried = 9, 1 + 1 + 2  # the longest recipe may be the best; a try has a quarter of its epochs
    assert tries.training_seconds == ((1 + 3 + 6 + 1) * 2 + tried + (2 + 1 + pruned) * finished) * 10 * 0.5


@pytest.mark.parametrize(
    ("sampler", "stop_weak", "whole"), [("tpe", True, True), ("surrogate", False, True), ("surrogate", True, False)]
)
def test_more_candidates_are_measured_than_trained_whole_if_trainings_pause(
    tiny: Study, sampler: str, stop_weak: bool, whole: bool
) -> None:
    """With two shorter rungs below a whole training, or with one: the shorter the lowest, the more candidates."""
    plan = replace(tiny.search, seeds=(), random_trials=4, guided_trials=16, finish_epochs=0)
    plan = replace(plan, sampler=sampler, stop_weak=stop_weak)
    long = replace(tiny, search=plan, recipe=replace(tiny.recipe, epochs=32))
    found, short = (
        forecast(long, 40, 0.5, 3.0),
        forecast(replace(long, recipe=replace(tiny.recipe, epochs=4)), 40, 0.5, 3.0),
    )
    if whole:
        assert found.candidates == short.candidates == 20
    else:
        assert 20 < short.candidates < found.candidates < 20 * 16
    assert found.training_seconds == 8 * short.training_seconds, "the effort is in whole trainings"


@pytest.mark.slow
def test_nas_profile_makes_a_missing_latency_table_and_reads_it_later(
    tiny: Study, tmp_path: Path, nas: Callable[..., Any]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(tiny.to_yaml())
    command = ("profile", file, "--budget", "10ms", "--samples", "50", "--networks", "40")
    answer = nas(*command)
    assert answer.code == 0, answer.err
    printed = answer.out
    assert "torch@cpu:1 at 64x96, 11 classes" in printed
    assert "no latency table of this device at this size yet: measuring 40 random networks" in printed
    assert re.search(r"ndnet29-fcn32 +\d+\.\d\d +\d+\.\d\d +inside", printed)
    assert re.search(r"narrowest +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +100%", printed)
    assert "forecast of the search" in printed
    again = nas(*command)
    assert again.code == 0, again.err
    assert "no latency table" not in again.out


@pytest.mark.slow
def test_nas_profile_begins_with_the_latency_table_of_the_package(nas: Callable[..., Any]) -> None:
    answer = nas("profile", "--budget", "10ms", "--target", "onnxruntime@cpu:1", "--input", "96x128", "--samples", "50")
    assert answer.code == 0, answer.err
    assert re.search(r"from a latency table that comes with the package: \d+\.\d% off on average", answer.out)
    assert "measuring" not in answer.out.partition("forecast")[0]
    assert re.search(r"ndnet45-ende +\d+\.\d\d +\d+\.\d\d +inside", answer.out)


@pytest.mark.slow
def test_a_forecast_describes_the_search_with_the_same_options(
    tiny: Study, tmp_path: Path, nas: Callable[..., Any]
) -> None:
    """A frontier is forecast for its number of budgets; several budgets have no limit of minutes, which is for one."""
    at = ("--target", "onnxruntime@cpu:1", "--samples", "20")
    file = tmp_path / "study.yaml"
    search = replace(tiny.search, guided_trials=0, random_trials=0)
    file.write_text(replace(tiny, frontier=True, search=search).to_yaml())
    whole = nas("profile", file, *at, "--budget", "50ms").done().out
    budgets = re.search(r"^budgets (.*ms), 50ms, roughly", whole, re.M)
    assert budgets
    assert len(budgets[1].split(", ")) == 4
    file.write_text(replace(tiny, search=search).to_yaml())
    alone = nas("profile", file, *at, "--budget", "50ms").done().out
    candidates = [int(re.search(r"about (\d+) candidates", text)[1]) for text in (whole, alone)]
    assert candidates == [5, 1]
    file.write_text(replace(tiny, frontier=True).to_yaml())
    refused = nas("profile", file, *at, "--budget", "0.001ms").refusal()
    assert "expected a budget with room for smaller ones below it, got 0.001ms" in refused

    assert "if that exceeds 4.5 minutes" in nas("profile", *at, "--budget", "10ms").done().out
    assert "if that exceeds" not in nas("profile", *at, "--budget", "5ms", "--budget", "10ms").done().out


@pytest.mark.slow
def test_nas_profile_answers_for_several_budgets_in_another_precision(
    tiny: Study, tmp_path: Path, nas: Callable[..., Any]
) -> None:
    budgets = ("--budget", "20ms", "--budget", "2ms")
    where = ("--target", "onnxruntime:int8@cpu:1", "--input", "64x96")
    answer = nas("profile", *budgets, *where, "--samples", "30", "--networks", "20").done()
    assert "\n2ms, 20ms on onnxruntime:int8@cpu:1 at 64x96" in answer.out
    assert "no latency table of this device in int8 at this size yet, and none comes with the package" in answer.out
    assert re.search(r"^published network .* 2ms +20ms$", answer.out, re.M)
    assert re.search(r"^2ms +\d+% +\d+% +\d+%$", answer.out, re.M)
    assert re.search(r"^20ms +\d+% +\d+% +\d+%$", answer.out, re.M)
    several = tmp_path / "several.yaml"
    several.write_text(replace(tiny, target="onnxruntime@cpu:1", precisions=("fp32", "int8")).to_yaml())
    both = nas("profile", several, "--budget", "20ms", "--samples", "30").done().out
    assert "from a latency table that comes with the package" in both
    assert "onnxruntime:int8@cpu:1: estimated from a latency table of its own, and each network counts" in both
    assert "networks may be faster" not in both


def test_a_profile_covers_only_the_precisions_of_the_study(
    tiny: Study, tmp_path: Path, nas: Callable[..., Any]
) -> None:
    """The precision of the target does not count if the study leaves it out."""
    file = tmp_path / "study.yaml"
    file.write_text(replace(tiny, target="null@cpu:1", precisions=("int8", "bf16")).to_yaml())
    answer = nas("profile", file, "--budget", "10ms")
    assert "null does not run bf16 on cpu" in answer.refusal(), "the highest of them"
    assert "10ms on null:bf16@cpu:1, null:int8@cpu:1 at 64x96" in answer.out + answer.err


@pytest.mark.slow
def test_a_precision_that_cannot_be_timed_is_left_out(tiny: Study, tmp_path: Path, nas: Callable[..., Any]) -> None:
    """The reason is printed, and an unreachable budget is refused as without this precision."""
    file = tmp_path / "study.yaml"
    file.write_text(replace(tiny, target="null@cpu:1", precisions=("int8", "fp32", "bf16")).to_yaml())
    answer = nas("profile", file, "--budget", "0.0001ms", "--samples", "20", "--networks", "20")
    assert "expected a budget that a network can meet, got 0.0001ms" in answer.refusal()
    bf16, int8 = re.findall(r"^note: left out: (.*)$", answer.out, re.M)
    assert "null does not run bf16" in bf16
    assert "null does not run int8" in int8
    assert "networks may be faster" not in answer.out


@pytest.mark.slow
def test_a_precision_without_a_table_leaves_reachability_open(
    tiny: Study, tmp_path: Path, nas: Callable[..., Any]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(replace(tiny, target="onnxruntime@cpu:1", precisions=("fp32", "int8")).to_yaml())
    at = ("--input", "64x128")  # a size for which no other test makes tables
    answer = nas("profile", file, "--budget", "0.0001ms", "--samples", "20", *at).done().out
    assert "networks may be faster on onnxruntime:int8@cpu:1, which have no latency table" in answer


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ([], "expected a study or a budget"),
        (["--budget", "0ms"], "0ms"),
        (["--budget", "10 parsecs"], "10 parsecs"),
        (["--budget", "10ms", "--samples", "0"], "--samples"),
        (["--budget", "10ms", "--networks", "3"], "--networks"),
        (["--budget", "10ms", "--input", "180"], "--input"),
        (["--budget", "10ms", "--target", "toaster@cpu"], "toaster"),
    ],
)
def test_bad_input_is_refused(arguments: list[str], answer: str, nas: Callable[..., Any]) -> None:
    assert answer in nas("profile", *arguments).refusal()


def test_options_that_no_network_has_are_noted_before_any_timing(
    tiny: Study, tmp_path: Path, nas: Callable[..., Any]
) -> None:
    file = tmp_path / "study.yaml"
    narrowed = {"detail": ("none",), "detail.width": (64,), "head.shuffle": (1, 3)}
    file.write_text(replace(tiny, space=narrowed).to_yaml())
    told = nas("profile", file, "--target", "toaster@cpu")
    assert told.code == 2
    assert told.out.splitlines()[1:] == [
        "note: space.detail.width: none of 300 random networks has 64; the axis never applied",
        "note: space.head.shuffle: none of 300 random networks has 3",
    ]
    file.write_text(replace(tiny, space={"detail": ("both",), "decoder": ("steps",)}).to_yaml())
    refused = nas("profile", file).refusal()
    assert f"{file}: space.detail: no network of this space can have one of ['both']" in refused
