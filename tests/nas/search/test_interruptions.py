"""Proposals depend neither on interruptions nor on the order in which trainings end. Trainings are simulated."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.runs.folder import RunFolder
from nas.runs.steps import rungs_for, steps_of
from nas.runs.table import hold_to_table
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.search.propose.proposals import Proposals
from nas.search.search import Search
from nas.search.train.ahead import Ahead
from nas.search.train.job import Job
from nas.search.train.stages import candidates
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores
from space import Architecture

SIZE = (180, 240)
EPOCHS = 4
PLAN = SearchPlan(seeds=("swiftnet-rn18",), random_trials=3, guided_trials=1, seed=11)  # draws both kinds of "fpl"
STUDY = Study(
    data=DataSpec(size=SIZE),
    budget="3ms",
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=EPOCHS, batch_size=4),
    space={
        "stages": (2,),
        "stage.depth": (1, 2),
        "block": ("nonbt", "fpl", "sep"),
        "decoder": ("none",),
        "detail": ("none",),
    },
    search=PLAN,
)
Invented = Callable[[float], Latency]


class SlowFpl:
    """A device on which networks of FPL blocks are over the budget: those with a step of one block always, and the
    others, on a busy machine, until all candidates are proposed.
    """

    def __init__(self, invented: Invented, run: RunFolder) -> None:
        self._invented = invented
        self._run = run

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        latency = self._invented(0.4 + space.multiply_adds(architecture, SIZE, 11) / 1e8)
        if architecture.stages[0].block != "fpl":
            return latency
        slow = self._invented(10 * latency.p50_milliseconds)
        if architecture.stages[0].depth == 1:
            return slow
        if sum(each.origin == "guided" and each.feasible for each in self._run.trials()) >= PLAN.guided_trials:
            return latency
        return replace(slow, ci_low_milliseconds=latency.p50_milliseconds, flagged=("other processes were busy",))

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]


class InterruptedHereError(Exception):
    """Simulates a killed driver."""


class Pretended:
    """A search with two workers whose trainings advance in an order drawn from `seed`, with occasional kills."""

    def __init__(self, search: Search, meter: SlowFpl, seed: int, lives: float) -> None:
        self._search = replace(search, workers=replace(search.workers, concurrent=2))
        self._meter = meter
        self._draw = random.Random(seed)
        self._dies = 1 / lives
        self.deaths = 0

    def to_its_end(self) -> list[tuple[object, ...]]:
        """Run to the end, and return all candidates."""
        while True:
            try:
                self._once()
            except InterruptedHereError:  # resumed on a machine with other cores
                self.deaths += 1
                workers = replace(self._search.workers, concurrent=self._draw.choice((1, 2, 4)))
                self._search = replace(self._search, workers=workers)
                continue
            run = self._search.run
            return [
                (each.number, each.name, each.architecture.key, each.rungs, len(run.progress(each, "search").history))
                for each in run.trials()
            ]

    def _once(self) -> None:
        source = Proposals(self._search, self._meter, None)
        training: list[Trial] = []
        ended = False
        while training or not ended:
            if self._draw.random() < self._dies:
                raise InterruptedHereError
            if not ended and len(training) < 2 and not source.waits():
                trial = source.next()
                ended = trial is None
                training += [] if trial is None else [trial]
            elif self._advance(chosen := self._draw.choice(training), lambda trial: source.finished(trial, failed="")):
                training.remove(chosen)

    def _advance(self, trial: Trial, finished: Callable[[Trial], None]) -> bool:
        """Train one more epoch; return whether it was the last."""
        run = self._search.run
        epoch = len(run.progress(trial, "search").history) + 1
        last = trial.until(EPOCHS)
        if epoch <= last:
            miou = random.Random(f"{trial.architecture.key}/{epoch}").random()
            scores = Scores(miou=miou, class_iou=(miou,) * 11, pixel_accuracy=miou)
            append_epoch(
                run.phase_path(trial, "search"),
                Epoch(epoch=epoch, epochs=EPOCHS, loss=1.0, seconds=1.0, scores=scores),
            )
        if epoch >= last:
            if self._draw.random() < self._dies:
                raise InterruptedHereError
            finished(trial)
        return epoch >= last


class FoundAhead(Pretended):
    """Such a search whose candidates a thread finds and measures while others train, as in a real one."""

    def _once(self) -> None:
        source = Proposals(self._search, self._meter, None)
        training: list[Trial] = []
        ended = False
        with Ahead(candidates(self._search, source), 2, lambda: None) as jobs:
            while training or not ended:
                if self._draw.random() < self._dies:
                    raise InterruptedHereError
                if not ended and len(training) < 2 and not jobs.waits():
                    job = jobs.next()
                    ended = job is None
                    training += [] if job is None else [job.trial]
                elif self._advance(
                    chosen := self._draw.choice(training),
                    lambda trial: jobs.end(Job(trial=trial, phase="search"), EPOCHS, ""),
                ):
                    training.remove(chosen)


@pytest.mark.parametrize("order", [1, *(pytest.param(order, marks=pytest.mark.slow) for order in (0, 2, 3))])
def test_interrupted_runs_propose_and_resume_the_same_candidates_as_undisturbed_ones(
    order: int, invented: Invented, search_of: Callable[[RunFolder], Search], tmp_path: Path
) -> None:
    """The order in which trainings end does not matter either: it is drawn, by 0 as in the run that is not killed."""
    found, deaths = [], []
    for name, seed, lives in (("whole", 0, 1e9), ("killed", order, 10.0)):
        run = RunFolder.create(tmp_path / name, STUDY)
        pretended = Pretended(search_of(run), SlowFpl(invented, run), seed, lives)
        found.append(pretended.to_its_end())
        deaths.append(pretended.deaths)
    whole, killed = found
    assert killed == whole
    assert deaths[0] == 0 < 2 < deaths[1]
    assert sum(str(name).startswith("guided") for _, name, *_ in whole) >= PLAN.guided_trials
    pauses, end = rungs_for(PLAN, EPOCHS)
    trials = run.trials()
    ends = [[rung.epochs for rung in trial.rungs] for trial in trials]
    assert [pauses] in ends, "some are weak"
    assert [pauses, end] in ends, "others go on from what they have"
    numbers = [step.number for step in steps_of(trials)]
    assert numbers == list(range(1, len(numbers) + 1))
    fpl = [trial for trial in run.trials() if trial.architecture.stages[0].block == "fpl"]
    assert {trial.feasible for trial in fpl} == {True, False}, "some were timed again, and others are surely over"
    for trial in fpl:
        assert trial.latency is not None
        assert not trial.latency.flagged
        assert bool(run.progress(trial, "search").history) == trial.feasible


@pytest.mark.slow
def test_candidates_measured_ahead_are_the_same_whenever_a_run_is_killed(
    invented: Invented, search_of: Callable[[RunFolder], Search], tmp_path: Path
) -> None:
    """The thread runs at random times, so the candidates measured but not begun at a kill are random too."""

    def candidates_of(kind: type[Pretended], name: str, seed: int, lives: float) -> list[tuple[object, ...]]:
        run = RunFolder.create(tmp_path / name, STUDY)
        return kind(search_of(run), SlowFpl(invented, run), seed, lives).to_its_end()

    whole = candidates_of(Pretended, "whole", 0, 1e9)
    assert candidates_of(FoundAhead, "ahead", 1, 1e9) == whole
    for seed in (2, 3):
        assert candidates_of(FoundAhead, f"killed {seed}", seed, 12.0) == whole


class Arithmetic:
    """A device on which a hundred million multiply-adds take a millisecond."""

    def __init__(self, invented: Invented) -> None:
        self._invented = invented

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        return self._invented(0.4 + space.multiply_adds(architecture, SIZE, 11) / 1e8)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]


@pytest.mark.slow
def test_a_table_that_is_made_or_lost_between_two_sessions_changes_no_proposal(
    invented: Invented, search_of: Callable[[RunFolder], Search], tmp_path: Path
) -> None:
    """A run's folder keeps the table that it began with, or the fact that there was none."""
    plan = SearchPlan(seeds=(), random_trials=2, guided_trials=1, stop_weak=False)
    study = replace(STUDY, search=plan, recipe=replace(STUDY.recipe, epochs=1))
    table = LatencyTable(
        target="onnxruntime@cpu:1",
        height=SIZE[0],
        width=SIZE[1],
        milliseconds={},
        unit_milliseconds={"multiply_adds": 1e-8},
        networks=100,
        seconds=1.0,
        error=0.1,
        environment={},
    )

    def begun(run: RunFolder, kept: LatencyTable | None) -> Proposals:
        return Proposals(search_of(run), Arithmetic(invented), hold_to_table(run, lambda: kept))

    def proposed(name: str, *sessions: LatencyTable | None) -> list[tuple[str, object]]:
        """All candidates of a run whose last session begins after the random candidates."""
        run = RunFolder.create(tmp_path / name, study)
        for kept in sessions:
            source = begun(run, kept)
            while len(run.trials()) < plan.random_trials or kept is sessions[-1]:
                if (trial := source.next()) is None:
                    break
                miou = 0.1 * trial.number
                scores = Scores(miou=miou, class_iou=(miou,) * 11, pixel_accuracy=miou)
                epoch = Epoch(epoch=1, epochs=1, loss=1.0, seconds=1.0, scores=scores)
                append_epoch(run.phase_path(trial, "search"), epoch)
                source.finished(trial, failed="")
        return [(each.architecture.key, each.latency) for each in run.trials()]

    with_it, without = proposed("with", table), proposed("without", None)
    assert with_it != without, "it matters"
    assert proposed("lost", table, None) == with_it
    assert proposed("made", None, table) == without
