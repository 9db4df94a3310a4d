"""Pruning in a search: a trained network over the budget is pruned into it, fine-tuned, and competes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import space
from nas.errors import UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.prune.judge import Judge
from nas.prune.plan import PruningPlan
from nas.prune.pruner import Pruner
from nas.prune.weighing import Weighed
from nas.report import summarize
from nas.runs.folder import RunFolder
from nas.runs.labelling import WEIGHTS
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.search.finish.cutting import prune_over_budget
from nas.search.finish.finishing import prune_company
from nas.search.search import Candidate, Search
from nas.study import load_study
from nas.training import Scores
from nas.training.weights import load_weights, save_weights
from space import Architecture
from space.scale import scale_width

STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 16, validation_images: 4}
budget: 1.5ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
space: {stages: [2], stage.depth: [1], block: [nonbt]}
search:
  {seeds: [ndnet45-fcn32], random_trials: 0, guided_trials: 0, finalists: 1, finish_epochs: 2, company: [erfnet],
   pruned: 1}
"""


def nas_search(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "nas.cli", "search", *arguments], capture_output=True, text=True, timeout=600
    )


class Tiring:
    """A device on which every latency is `slowness` times as long from the first repetition on, until it has rested.
    While it is `busy` its latencies are flagged, with wide intervals.
    """

    def __init__(self, invented: Callable[[float], Latency], slowness: float, *, busy: bool = False) -> None:
        self._invented = invented
        self._tired = slowness
        self._measured: list[str] = []
        self._slowness = 1.0
        self._busy = busy

    def rest(self) -> None:
        self._measured.clear()
        self._slowness, self._busy = 1.0, False

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        if architecture.key in self._measured:
            self._slowness = self._tired
        self._measured.append(architecture.key)
        latency = self._invented(self._slowness * space.multiply_adds(architecture, (48, 64), 11) / 1e7)
        if not self._busy:
            return latency
        low = space.multiply_adds(architecture, (48, 64), 11) / 1e8
        return replace(latency, ci_low_milliseconds=low, flagged=("other processes were busy",))


class Refusing(Tiring):
    """A device that refuses to time pruned networks."""

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        if architecture.channels:
            raise UnmeasuredError("fp16 gives other labels than PyTorch")
        return super().measure(architecture)


@pytest.fixture
def search(invented: Callable[[float], Latency], search_of: Callable[[RunFolder], Search], tmp_path: Path) -> Search:
    """A search with a trained published network that is a quarter over its budget."""
    (tmp_path / "study.yaml").write_text(STUDY)
    whole = scale_width(space.load("swiftnet-rn18"), 0.25)
    latency = Tiring(invented, 1.0).measure(whole)
    budget = Budget(milliseconds=0.8 * latency.p50_milliseconds)
    run = RunFolder.create(tmp_path / "run", replace(load_study(tmp_path / "study.yaml"), budget=str(budget)))
    search = search_of(run)
    parent = search.trial(
        1, Candidate(name="swiftnet", origin="company", architecture=whole, parent="swiftnet"), latency
    )
    run.write_trial(parent)
    save_weights(run.phase_path(parent, "search") / WEIGHTS, whole.build(11).state_dict(), {})
    scores = Scores(miou=0.3, class_iou=(0.3,) * 11, pixel_accuracy=0.3)
    append_epoch(run.phase_path(parent, "search"), Epoch(epoch=1, epochs=1, loss=1.0, seconds=1.0, scores=scores))
    return search


def cuts(search: Search, meter: Tiring) -> list[Trial]:
    judge = Judge(meter, (48, 64), 11)
    return prune_over_budget(search, Pruner(judge=judge, budget=search.budgets.largest, plan=PruningPlan(epochs=0)))


def recorded(search: Search) -> Trial:
    (cut,) = [trial for trial in search.run.trials() if trial.origin == "pruned"]
    return cut


@pytest.mark.share(2)
@pytest.mark.parametrize("tires", [False, True])
def test_a_cut_over_the_budget_when_measured_again_does_not_compete(
    tires: bool, search: Search, invented: Callable[[float], Latency]
) -> None:
    meter = Tiring(invented, 10.0 if tires else 1.0)
    found = [] if tires else ["swiftnet, pruned"]
    assert [cut.name for cut in cuts(search, meter)] == found
    assert recorded(search).inside(search.budgets.largest) != tires
    meter.rest()
    assert [cut.name for cut in cuts(search, meter)] == found, "as it is known"


@pytest.mark.slow
def test_a_cut_over_the_budget_on_a_busy_machine_is_timed_again(
    search: Search, invented: Callable[[float], Latency]
) -> None:
    meter = Tiring(invented, 10.0, busy=True)
    assert cuts(search, meter) == []
    busy = recorded(search)
    assert busy.latency is not None
    assert busy.latency.flagged
    assert cuts(search, meter) == [], "it is as busy as before"
    meter.rest()
    (cut,) = cuts(search, meter)
    assert cut == recorded(search)
    assert cut.latency is not None
    assert not cut.latency.flagged
    assert (cut.number, cut.architecture, cut.feasible) == (busy.number, busy.architecture, True)


def test_a_network_whose_cuts_cannot_be_timed_is_recorded_and_left_out(
    search: Search, invented: Callable[[float], Latency], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cuts(search, Refusing(invented, 1.0)) == []
    assert recorded(search).failed == "cannot be timed: fp16 gives other labels than PyTorch"
    assert "left out: fp16 gives other labels" in capsys.readouterr().out
    assert cuts(search, Tiring(invented, 1.0)) == [], "it is not tried again"


def test_the_report_is_updated_before_pruning_for_a_budget(
    search: Search, invented: Callable[[float], Latency]
) -> None:
    search = replace(search, study=replace(search.study, search=replace(search.study.search, pruned=0)))
    told: list[str] = []
    prune_company(search, Tiring(invented, 1.0), None, lambda: told.append("look"))
    assert told == ["look"]


@pytest.mark.slow
def test_a_cut_competes_and_is_not_made_twice(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    first = nas_search(str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run"))
    assert first.returncode == 0, first.stdout + first.stderr
    run = RunFolder.open(tmp_path / "run")
    (cut,) = [trial for trial in run.trials() if trial.origin == "pruned"]
    assert (cut.name, cut.parent) == ("erfnet, pruned", "erfnet")
    assert Budget.parse("1.5ms").admits(cut.latency)
    assert cut.parameters < space.parameters(space.load("erfnet"), 11)
    assert run.progress(cut, "finish").done
    network = cut.architecture.build(11)
    network.load_state_dict(load_weights(run.weights_path(cut)))

    summary = summarize(run)
    assert summary.winner is not None
    scores = {trial.name: run.best_miou(trial) for trial in run.trials() if run.best_miou(trial) is not None}
    assert summary.winner.name in scores
    assert "erfnet, pruned" in {row.name for row in summary.leaderboard}
    assert "prune   erfnet" in first.stdout

    before = {trial.architecture.key for trial in run.trials()}
    again = nas_search("--resume", str(tmp_path / "run"))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "prune   erfnet" not in again.stdout
    assert {trial.architecture.key for trial in run.trials()} == before


def test_a_network_too_large_for_memory_is_left_out(search: Search, invented: Callable[[float], Latency]) -> None:
    def weigh(*_: object) -> Weighed:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.55 GiB.")

    judge, budget = Judge(Tiring(invented, 1.0), (48, 64), 11), search.budgets.largest
    assert prune_over_budget(search, Pruner(judge=judge, budget=budget, plan=PruningPlan(epochs=0), weigh=weigh)) == []
    assert not [each for each in search.run.trials() if each.origin == "pruned"], "that is no verdict"
