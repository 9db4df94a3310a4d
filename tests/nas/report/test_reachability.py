"""`nas profile`: what is measured of a space, and what is said about a budget."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import space
from nas.cli import main
from nas.reachability import Measure, Reach, Reachability, explore, forecast_seconds, knobs
from nas.search.fill import NARROWEST
from nas.study import Study
from space import BudgetError
from space.latency import Budget, Latency
from space.scale import scale_width

TINY_SPACE: dict[str, tuple[Any, ...]] = {
    "stages": (2,),
    "block": ("nonbt",),
    "stem.kind": ("conv_pool",),
    "stem.width": (8,),
    "stage.width": (16, 24),
    "stage.depth": (1, 2, 3),
    "decoder": ("none",),
}


@pytest.fixture
def tiny(study: Study) -> Study:
    """A question about a space of tiny networks."""
    search = replace(study.search, seeds=("ndnet29-fcn32",), company=())
    return replace(study, space=TINY_SPACE, target="torch@cpu:1", search=search)


@pytest.fixture
def by_size(latency: Callable[[float], Latency]) -> Measure:
    """An invented target: a millisecond and one more for every two million multiply-adds."""
    return lambda architecture: latency(1 + space.multiply_adds(architecture, (64, 96), 3) / 2e6)


def reachability_of(study: Study, budget: str, measure: Measure, samples: int) -> Reachability:
    return explore(study, Budget.parse(budget), measure, 3, samples=samples, seed=0, progress=lambda done, total: None)


def test_each_network_is_measured_at_its_width_and_at_the_narrowest(tiny: Study, by_size: Measure) -> None:
    found = reachability_of(tiny, "50ms", by_size, 5)
    assert [each.name for each in found.published] == ["ndnet29-fcn32"]
    assert len({each.architecture.key for each in found.draws}) > 1
    for each in (*found.published, *found.draws):
        assert each.narrowest == by_size(scale_width(each.architecture, NARROWEST))
        assert each.full == by_size(each.architecture)
    name, lowest = found.lowest
    assert lowest == min(each.narrowest.p50_milliseconds for each in (*found.published, *found.draws))
    assert name in {each.name for each in (*found.published, *found.draws)}


def test_draws_that_are_plainly_too_large_are_over_without_being_timed(tiny: Study, by_size: Measure) -> None:
    found = reachability_of(tiny, "0.1ms", by_size, 5)
    assert all(each.full is None for each in found.draws)
    assert found.share([each.full for each in found.draws]) == 0
    with pytest.raises(BudgetError, match=f"{found.lowest[1]:.2f} ms"):
        found.require()


def test_axes_are_ordered_by_what_goes_along_with_latency(by_size: Measure) -> None:
    architecture = space.load("ndnet29-fcn32")
    fast = by_size(scale_width(architecture, 0.1))
    slow = by_size(architecture)
    draws = tuple(
        Reach(
            name="draw",
            architecture=architecture,
            genotype={"block": block, "activation": activation, "stages": 2},
            full=None,
            narrowest=slow if block == "fpl" else fast,
        )
        for block in ("fpl", "nonbt")
        for activation in ("relu", "prelu")
    )
    found = knobs(Reachability(budget=Budget(milliseconds=9), published=(), draws=draws, seconds_per_measurement=1))
    assert [knob.axis for knob in found] == ["block", "activation"]
    assert [value for value, _, _ in found[0].medians] == ["nonbt", "fpl"]
    assert found[0].spread == pytest.approx(slow.p50_milliseconds / fast.p50_milliseconds)
    assert found[1].spread == 1


def test_the_forecast_counts_every_epoch_that_is_planned(tiny: Study) -> None:
    plan = replace(tiny.search, random_trials=3, guided_trials=6, finalists=2, finish_epochs=5, company=("erfnet",))
    study = replace(tiny, search=plan, recipe=replace(tiny.recipe, epochs=2, batch_size=4))
    training, measuring = forecast_seconds(study, 41, 0.5, 3.0)
    epochs = (1 + 3 + 6 + 1) * 2 + (2 + 1) * 5
    assert training == epochs * 10 * 0.5
    assert measuring == (10 * 4 + 1) * 3.0


def test_the_command_measures_on_the_target(
    tiny: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = tmp_path / "study.yaml"
    file.write_text(tiny.to_yaml())
    assert main(["profile", str(file), "--budget", "10000ms", "--samples", "2"]) == 0
    printed = capsys.readouterr().out
    assert "torch@cpu:1 at 64x96, 3 classes" in printed
    assert re.search(r"ndnet29-fcn32 +\d+\.\d\d +\d+\.\d\d +inside", printed)
    assert re.search(r"narrowest +\d+\.\d\d +\d+\.\d\d +\d+\.\d\d +100%", printed)
    assert "forecast of the search" in printed


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ([], "expected a study or a budget"),
        (["--budget", "0ms"], "0ms"),
        (["--budget", "10 parsecs"], "10 parsecs"),
        (["--budget", "10ms", "--samples", "0"], "--samples"),
        (["--budget", "10ms", "--input", "180"], "--input"),
        (["--budget", "10ms", "--target", "toaster@cpu"], "toaster"),
    ],
)
def test_bad_input_is_answered(arguments: list[str], answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", *arguments]) == 2
    assert answer in capsys.readouterr().err
