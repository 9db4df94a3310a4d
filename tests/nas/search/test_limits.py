"""Limits on the size of networks, on invented devices that are faster than any budget needs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest

import space
from nas.data import DataSpec
from nas.latency.estimates.estimator import Estimates
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.folder import RunFolder
from nas.search.engine import _measure_published, _say_if_too_large, _table_of
from nas.search.measure.reachability import explore
from nas.search.measure.timing import Timing
from nas.search.propose.fill import FULL_ENOUGH, SAFE, WIDEST, fill
from nas.search.propose.limits import limits_of, widest
from nas.search.search import Search
from nas.study import SearchPlan, Study, built_in_study
from nas.training import load_recipe
from nas.training.recipe import EncoderStage
from space import Architecture, BudgetError, UserError
from space.count import memory
from space.scale import scale_width

Invented = Callable[[float], Latency]
CLASSES = 11


@dataclass(frozen=True)
class Fast:
    """A device with so many multiply-adds in a millisecond, and a fixed time to start each network."""

    invented: Invented
    size: tuple[int, int]
    multiply_adds: float

    def milliseconds(self, architecture: Architecture) -> float:
        return 0.2 + space.multiply_adds(architecture, self.size, CLASSES) / self.multiply_adds

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        return self.invented(self.milliseconds(architecture))

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(each) for each in architectures]


@dataclass(frozen=True)
class Uncalibrated(Fast):
    """Such a device without a kept latency table."""

    timed: tuple[str, ...] = ()

    def kept_table(self) -> None:
        return None

    def targets(self) -> tuple[Target, ...]:
        return tuple(map(Target.parse, self.timed))


DATA_CENTRE = 3e10


def filled(study: Study, name: str, device: Fast) -> tuple[Architecture, float]:
    """A seed of the study at the width that fills its budget, and the share that it uses."""
    from nas.latency.budget import Budget

    found = fill(
        space.load(name),
        Budget.parse(study.budget),
        device.measure,
        device.measure,
        Estimates(study.data.size, CLASSES).architecture,
        limits_of(study, CLASSES),
        multiply_adds=functools.partial(space.multiply_adds, size=study.data.size, num_classes=CLASSES),
        within=WITHIN,
    )
    return found.architecture, found.latency.p50_milliseconds / Budget.parse(study.budget).milliseconds


@pytest.mark.share(2)
@pytest.mark.parametrize("name", ["swiftnet-rn18", "ndnet45-ende"])
def test_a_budget_that_no_network_needs_makes_no_giants(name: str, invented: Invented) -> None:
    study = built_in_study("10ms")
    architecture, use = filled(study, name, Fast(invented, study.data.size, DATA_CENTRE))
    allows = limits_of(study, CLASSES)
    most = space.parameters(widest(space.load(name), allows), CLASSES)
    assert use < 0.5
    assert 0.7 * most < space.parameters(architecture, CLASSES) <= study.search.most_parameters
    assert allows(architecture)


@pytest.mark.parametrize("name", ["swiftnet-rn18", "erfnet"])
def test_the_built_in_study_limits_networks_on_a_gpu(name: str, invented: Invented) -> None:
    study = built_in_study("10ms", on_gpu=True)
    architecture, use = filled(study, name, Fast(invented, study.data.size, DATA_CENTRE))
    assert FULL_ENOUGH <= use <= SAFE
    assert limits_of(study, CLASSES)(architecture)


def test_memory_is_a_limit_too() -> None:
    plan = SearchPlan(most_gigabytes=0.1)
    study = replace(built_in_study("10ms"), search=plan)
    allows = limits_of(study, CLASSES)
    architecture = widest(space.load("erfnet"), allows)
    crop = study.recipe.crop
    assert crop is not None
    needed = memory(architecture, crop, CLASSES).training_bytes(study.recipe.batch_size)
    assert 0.07e9 < needed <= 0.1e9
    assert space.parameters(architecture, CLASSES) < plan.most_parameters


def test_the_larger_batches_of_an_encoder_count_too() -> None:
    study = replace(built_in_study("10ms"), search=SearchPlan(most_gigabytes=0.1))
    stage = EncoderStage(
        share=0.5, batch_size=3 * study.recipe.batch_size, class_weighting=None, labels="coarse", bias=True
    )
    two_stages = replace(study, recipe=replace(study.recipe, encoder=stage))
    crop = study.recipe.crop
    assert crop is not None
    wide, narrower = (widest(space.load("erfnet"), limits_of(each, CLASSES)) for each in (study, two_stages))
    assert memory(wide, crop, CLASSES, encoder=True).training_bytes(stage.batch_size) > 0.1e9
    assert 0.07e9 < memory(narrower, crop, CLASSES, encoder=True).training_bytes(stage.batch_size) <= 0.1e9
    alone = space.load("erfnet-encoder")  # which has no encoder stage
    assert widest(alone, limits_of(study, CLASSES)) == widest(alone, limits_of(two_stages, CLASSES))


@pytest.mark.parametrize("name", ["most_parameters", "most_gigabytes"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(UserError, match=rf"search.{name}: expected more than 0"):
        SearchPlan(**{name: 0})


@pytest.mark.parametrize(("speed", "said"), [(DATA_CENTRE, True), (DATA_CENTRE / 300, False)])
def test_a_search_notes_at_its_start_that_a_budget_exceeds_its_space(
    speed: float,
    said: bool,
    tmp_path: Path,
    invented: Invented,
    search_of: Callable[[RunFolder], Search],
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = replace(built_in_study("10ms"), target="onnxruntime@cpu:1")
    asked = search_of(RunFolder.create(tmp_path / "run", study))
    device = Fast(invented, study.data.size, speed)
    _measure_published(asked, device, None)
    _say_if_too_large(asked, device)
    told = capsys.readouterr().out
    assert ("no allowed network is slow enough to use this budget" in told) == said
    assert ("search.most_parameters" in told) == said


@pytest.mark.parametrize(
    ("timed", "said"),
    [
        (("onnxruntime@cpu:1",), "estimates begin with a table that comes with the package"),
        (("onnxruntime:int8@cpu:1",), "no latency table comes with the package for int8"),
        (("torch@cpu:1",), ""),
        (
            ("onnxruntime@cpu:1", "onnxruntime:int8@cpu:1"),
            "measurements correct them, in int8 too",
        ),
    ],
)
@pytest.mark.parametrize("precisions", [(), ("fp32", "bf16", "int8")])
def test_a_search_names_the_source_of_its_first_estimates(
    timed: tuple[str, ...],
    precisions: tuple[str, ...],
    said: str,
    tmp_path: Path,
    invented: Invented,
    search_of: Callable[[RunFolder], Search],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only precisions that can be timed count, however many the study allows."""
    target = str(replace(Target.parse(timed[0]), precision="fp32"))
    study = replace(built_in_study("10ms"), target=target, precisions=precisions)
    asked = search_of(RunFolder.create(tmp_path / "run", study))
    device = Uncalibrated(invented, study.data.size, DATA_CENTRE, timed)
    table = _table_of(asked, cast("Timing", device), [invented(10.0)])
    assert (table is not None) == (timed[0] == "onnxruntime@cpu:1")
    told = capsys.readouterr().out
    assert said in told
    assert bool(told) == bool(said)


def test_a_profile_refuses_a_budget_that_exceeds_its_space(invented: Invented) -> None:
    study = Study(
        data=DataSpec(size=(64, 96)),
        budget="10ms",
        recipe=load_recipe("quick"),
        space={"stages": (2,), "stage.depth": (1, 2)},
        search=SearchPlan(seeds=("ndnet29-fcn32",)),
    )
    device = Fast(invented, (64, 96), DATA_CENTRE)
    found = explore(study, device.milliseconds, samples=3, seed=0, allows=limits_of(study, CLASSES))
    for each in found.every:
        assert each.widest == device.milliseconds(widest(each.architecture, limits_of(study, CLASSES)))
    with pytest.raises(BudgetError, match="no allowed network is slow enough to use this budget"):
        found.require()


def test_the_widest_network_without_a_limit_has_the_largest_factor() -> None:
    architecture = space.load("ndnet45-ende")
    assert widest(architecture, lambda wide: True) == scale_width(architecture, WIDEST)
