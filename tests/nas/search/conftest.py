from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import space
from nas.data import Dataset, DataSpec, Split
from nas.data.dataset import label_map
from nas.latency.budget import Budget
from nas.latency.meter import Measures
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.runs.folder import RunFolder
from nas.runs.trial import Trial
from nas.search.console import Console
from nas.search.propose.solving import Solved, Solver
from nas.search.search import Search, Workers
from nas.study import SearchPlan, Study
from nas.training import Recipe
from space import Architecture
from space.scale import scale_width


@pytest.fixture(scope="session")
def invented() -> Callable[[float], Latency]:
    """The record of an invented measurement at 180x240."""
    return _invented


@pytest.fixture
def narrow(invented: Callable[[float], Latency]) -> Trial:
    """A trial with a network that is quick to train."""
    return Trial(
        number=1,
        name="narrow",
        origin="random",
        architecture=scale_width(space.load("ndnet45-fcn32"), 0.25),
        latency=invented(5.0),
        feasible=True,
        budget_milliseconds=10.0,
        parameters=1,
        multiply_adds=1,
    )


class Arithmetic:
    """A device on which some hundred million multiply-adds at 180x240 take a millisecond."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        return _invented(0.1 + space.multiply_adds(architecture, (180, 240), 11) / 1e8)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]


@pytest.fixture(scope="session")
def arithmetic() -> Measures:
    """A device on which latencies depend on multiply-adds alone."""
    return Arithmetic()


@pytest.fixture(scope="session")
def search_of() -> Callable[[RunFolder], Search]:
    """The search of a run's folder, on data of eleven classes without any files."""
    return _search_of


@pytest.fixture
def asked(tmp_path: Path, search_of: Callable[[RunFolder], Search]) -> Search:
    """A search for 10 ms on two small scenes that has not begun."""
    study = Study(
        data=DataSpec(size=(32, 48), train_images=2, validation_images=2),
        budget="10ms",
        target="onnxruntime@cpu",
        recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=1, batch_size=2),
        search=SearchPlan(finish_epochs=0, finalists=3),
    )
    return search_of(RunFolder.create(tmp_path / "run", study))


def _search_of(run: RunFolder) -> Search:
    study, nothing = run.study(), Split(images=(), labels=())
    data = Dataset(
        name=study.data.name,
        classes=tuple(f"class {index}" for index in range(11)),
        palette=((0, 0, 0),) * 11,
        label_map=label_map(11),
        train=nothing,
        validation=nothing,
        size=study.data.size,
    )
    workers = Workers(concurrent=1, threads=1, device="cpu")
    return Search(run=run, study=study, dataset=data, workers=workers, console=Console(run, study))


class Rigid(Solver):
    """A solver that changes no width, with one latency for all networks."""

    def __init__(self, search: Search, latency: Latency) -> None:
        super().__init__(search, Arithmetic(), None)
        self._latency = latency

    def solve(self, architecture: Architecture, budget: Budget) -> Solved:
        return Solved(
            architecture=architecture,
            latency=self._latency,
            factor=1.0,
            adjusted=False,
            reason="",
            measured=(),
            estimates=self._estimates,
        )


@pytest.fixture(scope="session")
def rigid() -> Callable[[Search, Latency], Solver]:
    """Makes solvers that change no width."""
    return Rigid


def _invented(milliseconds: float) -> Latency:
    return Latency(
        p50_milliseconds=milliseconds,
        p90_milliseconds=milliseconds,
        p99_milliseconds=milliseconds,
        ci_low_milliseconds=milliseconds,
        ci_high_milliseconds=milliseconds,
        samples=20,
        ratio=milliseconds / 5,
        ratio_low=milliseconds / 5,
        ratio_high=milliseconds / 5,
        reference_milliseconds=5.0,
        raw_p50_milliseconds=milliseconds,
        target="onnxruntime@cpu:1",
        height=180,
        width=240,
        scope="an invented device",
    )
