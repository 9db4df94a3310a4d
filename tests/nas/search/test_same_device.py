"""A run must not go on with latencies of another machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.latency.record import Latency
from nas.runs.earlier import Earlier, EarlierTrial, read_earlier, write_earlier
from nas.runs.folder import RunFolder
from nas.runs.trial import Trial
from nas.search.measure.comparable import leave_out_other_devices, require_same_device
from nas.study import Study
from nas.training import Recipe
from space import UserError

STUDY = Study(
    data=DataSpec(size=(180, 240)),
    budget="3ms",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=2, batch_size=4),
)
BESIDE_A_GPU = {"cpu": "EPYC", "gpu": "Orin", "gpu_memory_mebibytes": "7620", "gpu_capability": "8.7", "torch": "2.13"}
HERE = {"host": "one", "system": "Linux 6.1", "cpu": "EPYC", "threads": "1", "onnxruntime": "1.24", "protocol": "4"}


@pytest.fixture
def timed_in(tmp_path: Path, invented: Callable[[float], Latency]) -> Callable[[Mapping[str, str]], RunFolder]:
    """A run with one candidate that was timed in an environment."""

    def make(environment: Mapping[str, str]) -> RunFolder:
        run = RunFolder.create(tmp_path / "a run", STUDY)
        architecture = space.load("ndnet45-fcn32")
        run.write_trial(
            Trial(
                number=1,
                name="ndnet45-fcn32",
                origin="seed",
                architecture=architecture,
                latency=replace(invented(2.0), environment=dict(environment)),
                feasible=True,
                budget_milliseconds=3.0,
                parameters=space.parameters(architecture, 11),
                multiply_adds=space.multiply_adds(architecture, (180, 240), 11),
            )
        )
        return run

    return make


@pytest.mark.parametrize(
    ("before", "name", "now"),
    [
        (HERE, "cpu", "Xeon"),
        (HERE, "threads", "2"),
        (HERE, "protocol", "5"),
        (BESIDE_A_GPU, "gpu", "Xavier"),
        (BESIDE_A_GPU, "gpu_memory_mebibytes", "15655"),
        ({**BESIDE_A_GPU, "gpu_memory_mebibytes": "damaged"}, "gpu_memory_mebibytes", "7620"),
    ],
)
def test_a_changed_device_is_refused_and_named(
    before: Mapping[str, str], name: str, now: str, timed_in: Callable[[Mapping[str, str]], RunFolder]
) -> None:
    run = timed_in(before)
    with pytest.raises(UserError, match=rf"{name} {before[name]} before, {now} now.* --from '.*/a run', which"):
        require_same_device(run, {**before, name: now})


def test_changed_versions_are_noted(timed_in: Callable[[Mapping[str, str]], RunFolder]) -> None:
    run = timed_in(HERE)
    told = require_same_device(run, {**HERE, "onnxruntime": "1.25", "host": "two", "cores": "9", "driver": "3"})
    assert told == "driver - before, 3 now, onnxruntime 1.24 before, 1.25 now"
    assert require_same_device(run, HERE) == ""


def test_the_machine_around_a_gpu_may_change(timed_in: Callable[[Mapping[str, str]], RunFolder]) -> None:
    assert require_same_device(timed_in(BESIDE_A_GPU), {**BESIDE_A_GPU, "cpu": "Xeon", "host": "two"}) == ""


def test_a_driver_takes_a_little_of_a_gpus_memory(timed_in: Callable[[Mapping[str, str]], RunFolder]) -> None:
    assert require_same_device(timed_in(BESIDE_A_GPU), {**BESIDE_A_GPU, "gpu_memory_mebibytes": "7601"}) == ""


def test_earlier_latencies_on_another_device_are_dropped_and_trainings_are_kept(
    timed_in: Callable[[Mapping[str, str]], RunFolder], invented: Callable[[float], Latency]
) -> None:
    run, network = timed_in({}), space.load("ndnet29-fcn32")
    here, there = (replace(invented(2.0), environment={**HERE, "cpu": name}) for name in ("EPYC", "Xeon"))
    taken_over = [
        EarlierTrial(run="a", architecture=network, latency=here, miou=0.4),
        EarlierTrial(run="b", architecture=network, latency=there, miou=0.5),
        EarlierTrial(run="b", architecture=network, miou=0.6),
    ]
    write_earlier(run, Earlier(trials=tuple(taken_over)))
    assert leave_out_other_devices(run, HERE) == 1
    assert read_earlier(run).trials == (taken_over[0], replace(taken_over[1], latency=None), taken_over[2])
    assert leave_out_other_devices(run, HERE) == 0


def test_a_record_without_an_environment_is_accepted(timed_in: Callable[[Mapping[str, str]], RunFolder]) -> None:
    assert require_same_device(timed_in({}), HERE) == ""
