"""The next candidates to train, on an invented device, without Ray and without trainings."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.runs.folder import RunFolder
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.search.propose.candidates import SpaceQuestions, sampler_of
from nas.search.propose.proposals import Proposals
from nas.search.propose.sampler import Outcome, Sampler
from nas.search.propose.solving import Solver
from nas.search.search import Search
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores
from space import Architecture, BudgetError
from space.axes import searched
from space.choices import Genotype
from space.search_space import Space

SIZE = (180, 240)
CLASSES = 11
Invented = Callable[[float], Latency]
Propose = Callable[..., Proposals]


def study(budget: str = "10ms", **plan: object) -> Study:
    effort = SearchPlan(seeds=("swiftnet-rn18", "ndnet29-fcn32"), random_trials=3, guided_trials=3)
    return Study(
        data=DataSpec(size=SIZE),
        budget=budget,
        target="onnxruntime@cpu:1",
        recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=2, batch_size=4),
        space={"stages": (2,), "stage.depth": (1, 2)},  # small ones: every width is found by hundreds of estimates
        search=replace(effort, **plan),
    )


class SlowBranches:
    """A device on which FPL's many branches take ten times as long as their arithmetic."""

    def __init__(self, invented: Invented) -> None:
        self._invented = invented

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        slow = 10 if architecture.stages[0].block == "fpl" else 1
        return self._invented(0.1 + slow * space.multiply_adds(architecture, SIZE, CLASSES) / 1e8)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]


@pytest.fixture
def proposals(invented: Invented, search_of: Callable[[RunFolder], Search]) -> Propose:
    """Proposals for a run with some budget and plan."""

    def propose(run: RunFolder, budget: str = "10ms", **plan: object) -> Proposals:
        run.write_study(study(budget, **plan))
        return Proposals(search_of(run), SlowBranches(invented), None)

    return propose


def pretend_training(run: RunFolder, source: Proposals, trial: Trial, miou: float = 0.3) -> None:
    scores = Scores(miou=miou, class_iou=(miou,) * CLASSES, pixel_accuracy=miou)
    for number in (1, 2):
        epoch = Epoch(epoch=number, epochs=2, loss=1.0, seconds=1.0, scores=scores)
        append_epoch(run.phase_path(trial, "search"), epoch)
    source.finished(trial, failed="")


def all_of(run: RunFolder, source: Proposals) -> list[Trial]:
    given = []
    while (trial := source.next()) is not None:
        given.append(trial)
        pretend_training(run, source, trial)
    return given


@pytest.mark.slow
def test_the_plan_is_followed_and_every_candidate_is_inside_the_budget(tmp_path: Path, proposals: Propose) -> None:
    run = RunFolder.create(tmp_path / "run", study())
    given = all_of(run, proposals(run))
    assert [trial.origin for trial in given] == ["seed"] * 2 + ["random"] * 3 + ["guided"] * 3
    assert all(trial.latency.p50_milliseconds <= 10 for trial in given)
    assert len({trial.architecture.key for trial in given}) == len(given)
    assert {trial.architecture.key for trial in run.trials()} >= {trial.architecture.key for trial in given}
    timed = [run.timed(trial) for trial in given]
    assert all(each.seconds is not None and each.measured for each in timed)
    assert all(each.seconds is not None for one in timed for each in one.measured)


@pytest.mark.slow
def test_candidates_over_the_budget_are_recorded_and_not_trained(tmp_path: Path, proposals: Propose) -> None:
    run = RunFolder.create(tmp_path / "run", study("0.3ms"))
    given = all_of(run, proposals(run, "0.3ms", random_trials=8, guided_trials=0))
    over = [trial for trial in run.trials() if not trial.feasible]
    assert over, "some draws cannot be made this fast"
    assert not {trial.architecture.key for trial in over} & {trial.architecture.key for trial in given}
    assert all(trial.latency.p50_milliseconds > 0.3 for trial in over)


@pytest.mark.slow
def test_a_resumed_run_does_not_repeat_proposals(tmp_path: Path, proposals: Propose) -> None:
    run = RunFolder.create(tmp_path / "run", study())
    source = proposals(run)
    first = [source.next() for _ in range(3)]
    assert first[0] is not None
    pretend_training(run, source, first[0])
    rest = all_of(run, proposals(run))
    keys = [trial.architecture.key for trial in rest]
    assert first[0].architecture.key not in keys
    assert keys[:2] == [trial.architecture.key for trial in first[1:] if trial is not None]
    assert sum(trial.feasible for trial in run.trials()) == 8


@pytest.mark.slow
def test_a_changed_budget_keeps_old_trials_and_brings_a_new_plan(tmp_path: Path, proposals: Propose) -> None:
    run = RunFolder.create(tmp_path / "run", study())
    few = {"random_trials": 1, "guided_trials": 1}
    all_of(run, proposals(run, **few))
    before = {trial.architecture.key for trial in run.trials()}
    given = all_of(run, proposals(run, "5ms", **few))
    assert len(given) == 4
    assert all(trial.latency.p50_milliseconds <= 5 for trial in given)
    assert before <= {trial.architecture.key for trial in run.trials()}
    assert all(trial.feasible == (trial.latency.p50_milliseconds <= 5) for trial in run.trials())


@pytest.mark.slow
def test_a_budget_that_no_draw_can_meet_ends_with_the_lowest_latency_seen(tmp_path: Path, proposals: Propose) -> None:
    run = RunFolder.create(tmp_path / "run", study("0.05ms"))
    with pytest.raises(BudgetError, match=r"the lowest took 0\.\d+ ms"):
        all_of(run, proposals(run, "0.05ms", seeds=()))


@pytest.mark.slow
def test_narrow_ranges_bind_the_questions_before_them(
    tmp_path: Path, invented: Invented, search_of: Callable[[RunFolder], Search]
) -> None:
    """Only some blocks can be sums of paths: every draw has one, and a seed without one is outside the space."""
    narrow = {"stages": (2,), "stage.depth": (1, 2), "rep": (True,)}
    asked = replace(study(seeds=("erfnet-encoder",), random_trials=1, guided_trials=1), space=narrow)
    run = RunFolder.create(tmp_path / "run", asked)
    given = all_of(run, Proposals(search_of(run), SlowBranches(invented), None))
    assert [(trial.origin, bool(trial.genotype)) for trial in given] == [
        ("seed", False), ("random", True), ("guided", True),
    ]  # fmt: skip
    assert all(trial.architecture.rep for trial in given[1:])


def pretend_rungs(run: RunFolder, source: Proposals, epochs: int) -> list[Trial]:
    """Give out and train all remaining jobs: each network has a score of its own, which rises with its epochs."""
    given = []
    while (trial := source.next()) is not None:
        given.append(trial)
        begun = len(run.progress(trial, "search").history)
        for number in range(begun + 1, trial.until(epochs) + 1):
            miou = 0.01 * number + random.Random(trial.architecture.key).random() / 2
            scores = Scores(miou=miou, class_iou=(miou,) * CLASSES, pixel_accuracy=miou)
            epoch = Epoch(epoch=number, epochs=epochs, loss=1.0, seconds=1.0, scores=scores)
            append_epoch(run.phase_path(trial, "search"), epoch)
        source.finished(trial, failed="")
    return given


@pytest.mark.slow
def test_paused_candidates_go_on_and_finalists_are_trained_to_the_end(
    tmp_path: Path, invented: Invented, search_of: Callable[[RunFolder], Search]
) -> None:
    asked = study(seeds=("swiftnet-rn18",), random_trials=3, guided_trials=1, finalists=4)
    encoders = {**asked.space, "decoder": ("none",), "detail": ("none",)}
    asked = replace(asked, recipe=replace(asked.recipe, epochs=4), space=encoders)
    run = RunFolder.create(tmp_path / "run", asked)
    pretend_rungs(run, Proposals(search_of(run), SlowBranches(invented), None), 4)
    trials = [trial for trial in run.trials() if trial.feasible]
    assert {trial.rungs[0].epochs for trial in trials} == {1}, "all begin with a short training"
    whole = [trial for trial in trials if run.progress(trial, "search").done]
    assert len(whole) >= 4
    assert len(whole) < len(trials), "the others pause"
    assert all(len(run.progress(trial, "search").history) == trial.until(4) for trial in trials)
    steps = [rung for trial in trials for rung in trial.rungs[1:] if rung.guided or trial.origin == "seed"]
    spent = len(trials) + 3 * len(steps)
    assert 20 <= spent < 24, "the effort of five whole trainings, the last step begun within it"
    assert pretend_rungs(run, Proposals(search_of(run), SlowBranches(invented), None), 4) == [], "all is done"


def test_the_first_guided_candidate_is_chosen_by_the_model(
    tmp_path: Path,
    invented: Invented,
    search_of: Callable[[RunFolder], Search],
    rigid: Callable[[Search, Latency], Solver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One seed is outside the space, so the sampler does not know it, and two candidates are still in training."""
    compared: list[Genotype] = []
    around = SpaceQuestions.around

    def recorded(self: SpaceQuestions, best: Sequence[Genotype], rng: random.Random) -> list[Genotype]:
        found = around(self, best, rng)
        compared.extend(found)
        return found

    monkeypatch.setattr(SpaceQuestions, "around", recorded)
    seeds = ("ndnet45-ende", "swiftnet-rn18", "fast-scnn", "ddrnet23-slim")
    run = RunFolder.create(tmp_path / "run", replace(study(seeds=seeds, random_trials=8), space={}))
    search = search_of(run)
    search = replace(search, workers=replace(search.workers, concurrent=2))
    source = Proposals(search, SlowBranches(invented), None)
    monkeypatch.setattr(source, "_solver", rigid(search, invented(9.0)))
    given: list[Trial] = []
    while not given or given[-1].origin != "guided":
        assert not source.waits()
        trial = source.next()
        assert trial is not None
        given.append(trial)
        if len(given) > 2:
            pretend_training(run, source, given[-3])
    assert [bool(trial.genotype) for trial in given[:4]] == [True, True, True, False]
    assert len(given) == 13
    assert dict(given[-1].genotype) in compared


@pytest.mark.parametrize(("scores", "whole"), [((0.3, 0.2, 0.1), False), ((0.3, 0.1, 0.2), True)])
def test_a_seed_outside_the_space_goes_on_if_it_is_among_the_two_best(
    scores: tuple[float, float, float],
    whole: bool,
    tmp_path: Path,
    invented: Invented,
    search_of: Callable[[RunFolder], Search],
    rigid: Callable[[Search, Latency], Solver],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sampler cannot propose it. It goes on or stays paused once the first rungs of all seeds are known."""
    seeds = ("ndnet45-ende", "swiftnet-rn18", "ddrnet23-slim")
    asked = replace(study(seeds=seeds, random_trials=4, guided_trials=1), space={})
    run = RunFolder.create(tmp_path / "run", replace(asked, recipe=replace(asked.recipe, epochs=4)))
    search = search_of(run)
    search = replace(search, workers=replace(search.workers, concurrent=2))
    source = Proposals(search, SlowBranches(invented), None)
    monkeypatch.setattr(source, "_solver", rigid(search, invented(9.0)))
    given: list[Trial] = []
    for number in range(1, 7):
        assert not source.waits()
        trial = source.next()
        assert trial is not None
        given.append(trial)
        if number > 2:
            ended = given[-3]
            miou = dict(zip(seeds, scores, strict=True)).get(ended.parent, 0.15)
            for epoch in range(len(run.progress(ended, "search").history) + 1, ended.until(4) + 1):
                found = Scores(miou=miou, class_iou=(miou,) * CLASSES, pixel_accuracy=miou)
                record = Epoch(epoch=epoch, epochs=4, loss=1.0, seconds=1.0, scores=found)
                append_epoch(run.phase_path(ended, "search"), record)
            source.finished(ended, failed="")
    assert [trial.until(4) for trial in given[:5]] == [1] * 5
    assert [bool(trial.genotype) for trial in given[:3]] == [True, True, False]
    last = given[-1]
    assert (last.parent, last.until(4)) == (("ddrnet23-slim", 4) if whole else ("", 1))


def test_a_candidate_stopped_by_an_earlier_version_can_go_on(
    tmp_path: Path, invented: Invented, search_of: Callable[[RunFolder], Search]
) -> None:
    """It was stopped in the middle of its schedule, and goes on from there with another one."""
    asked = study(seeds=("swiftnet-rn18",), random_trials=0, guided_trials=0, finalists=1)
    asked = replace(asked, recipe=replace(asked.recipe, epochs=4))
    run = RunFolder.create(tmp_path / "run", asked)
    (trial,) = [Proposals(search_of(run), SlowBranches(invented), None).next()]
    assert trial is not None
    scores = Scores(miou=0.2, class_iou=(0.2,) * CLASSES, pixel_accuracy=0.2)
    append_epoch(run.phase_path(trial, "search"), Epoch(epoch=1, epochs=4, loss=1.0, seconds=1.0, scores=scores))
    run.write_trial(replace(trial, stopped=True))
    (again,) = pretend_rungs(run, Proposals(search_of(run), SlowBranches(invented), None), 4)
    assert [rung.epochs for rung in again.rungs] == [1, 4]
    assert run.progress(again, "search").done


THREE_KINDS = {**searched(), "block": ("nonbt", "fpl", "sep")}


def shares(sampler: Sampler[Architecture], draws: int) -> float:
    """Share of proposals with FPL blocks, none of which can be trained."""
    slow = 0
    for _ in range(draws):
        proposal = sampler.propose()
        slow += proposal.built.stages[0].block == "fpl"
        sampler.tell(proposal.number, Outcome(miou=None, violations={"latency": 0.5}))
    return slow / draws


def enter(sampler: Sampler[Architecture], candidates: int, outcome: Callable[[bool], Outcome]) -> None:
    """Report the outcomes of random draws; `outcome` depends on whether a draw has FPL blocks."""
    narrowed = Space(ranges=THREE_KINDS, size=SIZE)
    for index in range(candidates):
        architecture = narrowed.sample(random.Random(index))
        number = sampler.enter(narrowed.genotype(architecture))
        sampler.tell(number, outcome(architecture.stages[0].block == "fpl"))


# The numbers of reported draws and of tested proposals: the surrogate compares hundreds for each proposal.
LEARNS = pytest.mark.parametrize(("kind", "told", "draws"), [("tpe", 60, 40), ("surrogate", 16, 6)])


@pytest.mark.share(2)
@LEARNS
def test_the_sampler_avoids_a_kind_that_violates_the_budget(kind: str, told: int, draws: int) -> None:
    sampler = sampler_of(Space(ranges=THREE_KINDS, size=SIZE), kind=kind, startup=1, seed=0)
    slow, fast = Outcome(miou=None, violations={"latency": 2.0}), Outcome(miou=0.4, violations={"latency": -0.1})
    enter(sampler, told, lambda fpl: slow if fpl else fast)
    assert shares(sampler, draws) < 0.17, "a third of random draws are FPL"


@pytest.mark.share(2)
@LEARNS
def test_the_sampler_prefers_a_kind_that_scored_well(kind: str, told: int, draws: int) -> None:
    sampler = sampler_of(Space(ranges=THREE_KINDS, size=SIZE), kind=kind, startup=1, seed=0)
    enter(sampler, told, lambda fpl: Outcome(miou=0.6 if fpl else 0.2, violations={"latency": -0.1}))
    blocks = [sampler.propose().built.stages[0].block for _ in range(draws)]
    assert blocks.count("fpl") > 0.6 * draws, "a third of random draws are FPL"
