"""A candidate that the target cannot time is recorded with its reason, and the search goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.errors import BusyError, ExportError, HaltedError, TargetError, UnmeasuredError
from nas.latency import WorkerError
from nas.latency.careful import time_each, time_one
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.report import summarize
from nas.runs.folder import RunFolder
from nas.runs.trial import Trial
from nas.search.engine import _measure_published
from nas.search.propose.proposals import Proposals
from nas.search.search import Search
from nas.study import SearchPlan, Study
from nas.training import Recipe
from space import Architecture

SIZE = (180, 240)
Invented = Callable[[float], Latency]
REASON = "fp16 gives other labels than PyTorch on 3.00% of the pixels"


def study() -> Study:
    return Study(
        data=DataSpec(size=SIZE),
        budget="3ms",
        target="onnxruntime@cpu:1",
        recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=1, batch_size=4),
        space={"stages": (2,), "stage.depth": (1,), "block": ("nonbt", "fpl", "sep")},
        search=SearchPlan(seeds=("swiftnet-rn18",), random_trials=3, guided_trials=1),
    )


class Refusing:
    """A device that cannot time some networks, nor any others in the same request."""

    def __init__(self, invented: Invented, refuses: Callable[[Architecture], bool], error: Exception) -> None:
        self._invented = invented
        self._refuses = refuses
        self._error = error
        self.asked: list[str] = []

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        return self.measure_together([architecture])[0]

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        self.asked += [each.key for each in architectures]
        if any(self._refuses(each) for each in architectures):
            raise self._error
        return [self._invented(0.1 + space.multiply_adds(each, SIZE, 11) / 1e8) for each in architectures]


def has_fpl(architecture: Architecture) -> bool:
    return architecture.stages[0].block == "fpl"


def is_wide(architecture: Architecture) -> bool:
    return space.parameters(architecture, 11) > 300_000


def proposed(source: Proposals) -> list[Trial]:
    given = []
    while (trial := source.next()) is not None:
        given.append(trial)
        source.finished(trial, failed="pretended")
    return given


def test_a_search_goes_on_past_candidates_that_cannot_be_timed(
    invented: Invented, search_of: Callable[[RunFolder], Search], tmp_path: Path
) -> None:
    error = WorkerError(f"Traceback ...\nRuntimeError: x\n{REASON}")
    search = search_of(RunFolder.create(tmp_path / "run", study()))
    given = proposed(Proposals(search, Refusing(invented, has_fpl, error), None))
    assert [each.origin for each in given] == ["seed"] + ["random"] * 3 + ["guided"]
    refused = [each for each in search.run.trials() if each.latency is None]
    assert refused, "a third of what is drawn has such blocks"
    for each in refused:
        assert has_fpl(each.architecture)
        assert not each.feasible
        assert each.failed == f"cannot be timed: {REASON}"
    again = Refusing(invented, has_fpl, error)
    assert proposed(Proposals(search, again, None)) == []
    assert again.asked == [], "nothing is drawn again when the run goes on"
    assert any(REASON in note for note in summarize(search.run).notes)


@pytest.mark.slow
def test_other_widths_are_used_if_some_cannot_be_timed(
    invented: Invented, search_of: Callable[[RunFolder], Search], tmp_path: Path
) -> None:
    search = search_of(RunFolder.create(tmp_path / "run", study()))
    given = proposed(Proposals(search, Refusing(invented, is_wide, TargetError("out of memory")), None))
    assert len(given) == 5
    assert all(each.latency is not None and not is_wide(each.architecture) for each in given)


def test_company_that_cannot_be_timed_is_recorded(
    invented: Invented, search_of: Callable[[RunFolder], Search], tmp_path: Path
) -> None:
    search = search_of(RunFolder.create(tmp_path / "run", study()))
    _measure_published(search, Refusing(invented, has_fpl, TargetError(REASON)), None)
    company = {each.name: each for each in search.run.company()}
    assert set(company) == set(space.published())
    unmeasured = {name for name, each in company.items() if each.latency is None}
    assert unmeasured == {"fplnet", "fplnet-encoder"}
    assert all(REASON in company[name].failed for name in unmeasured)
    again = Refusing(invented, has_fpl, TargetError(REASON))
    _measure_published(search, again, None)
    assert again.asked == []


def test_only_networks_of_the_study_are_timed_on_a_device_with_a_latency_table(
    invented: Invented, search_of: Callable[[RunFolder], Search], tmp_path: Path
) -> None:
    asked = replace(study(), search=replace(study().search, company=("erfnet",)))
    search = search_of(RunFolder.create(tmp_path / "run", asked))
    table = LatencyTable(
        target=asked.target, height=SIZE[0], width=SIZE[1], milliseconds={}, networks=10, seconds=2.0, error=0.05,
        unit_milliseconds={"multiply_adds": 1e-8}, environment={},
    )  # fmt: skip
    _measure_published(search, Refusing(invented, has_fpl, TargetError(REASON)), table)
    assert {each.name for each in search.run.company()} == {*asked.search.company, *asked.search.seeds}


def test_a_target_that_can_time_no_network_is_no_fault_of_a_candidate(invented: Invented) -> None:
    erfnet = space.load("erfnet")
    broken = Refusing(invented, lambda _: True, WorkerError("was killed by signal 9; its last output: (none)"))
    with pytest.raises(HaltedError, match="expected a target that can be timed"):
        time_each(broken, [erfnet], within=WITHIN)
    missing = Refusing(invented, lambda _: True, TargetError("TensorRT is not installed"))
    with pytest.raises(TargetError, match="not installed"):
        time_one(missing, erfnet, within=WITHIN)
    with pytest.raises(ExportError, match="no exporter"):
        time_one(Refusing(invented, lambda _: True, ExportError("no exporter is there")), erfnet, within=WITHIN)
    for error in (TargetError("other labels"), ExportError("other labels"), WorkerError("other labels")):
        with pytest.raises(UnmeasuredError, match="other labels"):
            time_one(Refusing(invented, lambda each: each == erfnet, error), erfnet, within=WITHIN)


def test_networks_that_can_be_timed_take_turns_without_a_refused_one(invented: Invented) -> None:
    first, wrong, last = map(space.load, ("ndnet29-fcn32", "erfnet", "ndnet61-fcn32"))
    device = Refusing(invented, lambda each: each == wrong, TargetError("other labels"))
    found = time_each(device, [first, wrong, last], within=WITHIN)
    assert [isinstance(each, UnmeasuredError) for each in found] == [False, True, False]
    assert device.asked[-2:] == [first.key, last.key]
    assert device.asked.count(first.key) == 3, "with all, alone, and with the other"


def test_memory_held_by_other_processes_halts_the_search_without_a_verdict(invented: Invented) -> None:
    busy = Refusing(invented, lambda _: True, BusyError("expected a network that fits into memory, got others"))
    with pytest.raises(HaltedError, match=r"got others.*free memory.*--resume"):
        time_each(busy, [space.load("erfnet")], within=WITHIN)
    with pytest.raises(HaltedError, match=r"got others.*free memory.*--resume"):
        time_one(busy, space.load("erfnet"), within=WITHIN)
