"""One search for several budgets, on an invented device: the candidates and the winner of each budget."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

import space
from nas.data import DataSpec, load
from nas.latency.budget import Budget
from nas.latency.meter import Measures
from nas.latency.protocol import WITHIN
from nas.latency.record import Latency
from nas.latency.target import Target
from nas.runs.certificate import read_certificate
from nas.runs.folder import RunFolder
from nas.runs.gathering import gather_winners
from nas.runs.shares import Shares
from nas.runs.spent import Stopwatch
from nas.runs.trained import load_trained
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.runs.unreached import give_up, unreached
from nas.search.engine import _require_reachable
from nas.search.finish.finishing import all_finalists, certify_each, finalists
from nas.search.measure.narrowest import Narrowest
from nas.search.propose.proposals import Proposals
from nas.search.propose.solving import Solver
from nas.search.search import Candidate, Search
from nas.storage.files import write_text
from nas.study import SearchPlan, Study
from nas.terminal import ProgressLine
from nas.training import Recipe, Scores
from nas.training.weights import save_weights
from space import Architecture, UserError, strict
from space.scale import scale_width

SIZE = (180, 240)
EPOCHS = 4
STUDY = Study(
    data=DataSpec(size=SIZE),
    budgets=("6ms", "3ms"),
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=EPOCHS, batch_size=4),
    space={"stages": (2,), "stage.depth": (1,), "block": ("sep", "nonbt"), "decoder": ("none",)},
    search=SearchPlan(seeds=("ndnet29-fcn32",), random_trials=2, guided_trials=1, finalists=1),
)
THREE, SIX = Budget.parse("3ms"), Budget.parse("6ms")
Invented = Callable[[float], Latency]
SearchOf = Callable[[RunFolder], Search]
RigidOf = Callable[[Search, Latency], Solver]


class Arithmetic:
    """A device on which a hundred million multiply-adds take a millisecond; latencies of certificates are prepared."""

    def __init__(self, invented: Invented) -> None:
        self._invented = invented
        self.certified: dict[str, float] = {}

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        milliseconds = 0.4 + space.multiply_adds(architecture, SIZE, 11) / 1e8
        return self._invented(self.certified.get(architecture.key, milliseconds))

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        return [self.measure(architecture) for architecture in architectures]


def train(run: RunFolder, source: Proposals, trial: Trial) -> None:
    """Record invented epochs up to the rung of a trial: a larger network scores more."""
    for number in range(len(run.progress(trial, "search").history) + 1, trial.until(EPOCHS) + 1):
        miou = 0.1 * number + trial.multiply_adds / 1e10
        scores = Scores(miou=miou, class_iou=(miou,) * 11, pixel_accuracy=miou)
        epoch = Epoch(epoch=number, epochs=EPOCHS, loss=1.0, seconds=1.0, scores=scores)
        append_epoch(run.phase_path(trial, "search"), epoch)
    source.finished(trial, failed="")


def to_the_end(search: Search, meter: Measures, *, interrupted: bool = False) -> None:
    """Train all proposals; `interrupted`: with a new process now and then."""
    source = Proposals(search, meter, None)
    while (trial := source.next()) is not None:
        if interrupted and trial.last_number in (2, 7):
            source = Proposals(search, meter, None)
            again = source.next()
            assert again == trial
        train(search.run, source, trial)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, invented: Invented, search_of: SearchOf) -> RunFolder:
    """A run for two budgets in which all candidates are proposed."""
    run = RunFolder.create(tmp_path_factory.mktemp("frontier") / "run", STUDY)
    to_the_end(search_of(run), Arithmetic(invented))
    return run


def test_each_candidate_is_made_for_one_budget_and_fills_it(searched: RunFolder) -> None:
    trials = searched.trials()
    assert {trial.budget_milliseconds for trial in trials} == {3.0, 6.0}
    for trial in trials:
        assert trial.latency is not None
        assert 0.8 * trial.budget_milliseconds < trial.latency.p50_milliseconds <= trial.budget_milliseconds
    made = Counter((trial.origin, trial.budget_milliseconds) for trial in trials)
    assert made["seed", 3.0] == made["seed", 6.0] == 1, "a published network is scaled to each"
    assert made["random", 3.0] == made["random", 6.0] == 1, "random draws are divided"
    assert made["guided", 3.0] >= 1
    assert made["guided", 6.0] >= 1
    assert [trial.budget_milliseconds for trial in trials][:4] == [3.0, 6.0, 3.0, 6.0], "in turns"
    assert len({trial.name for trial in trials}) == len(trials)


def test_each_budget_has_finalists_of_its_own_that_were_trained_to_the_end(searched: RunFolder) -> None:
    for budget in (3.0, 6.0):
        own = [trial for trial in searched.trials() if trial.budget_milliseconds == budget]
        assert any(searched.progress(trial, "search").done for trial in own)


def test_the_best_network_within_a_budget_may_be_made_for_a_smaller_one(
    searched: RunFolder, search_of: SearchOf
) -> None:
    search = search_of(searched)
    assert all(trial.budget_milliseconds == 3.0 for trial in finalists(search, THREE))
    both = {trial.architecture.key for budget in (THREE, SIX) for trial in finalists(search, budget)}
    assert {trial.architecture.key for trial in all_finalists(search)} == both
    inside = [trial for trial in searched.trials() if trial.inside(SIX)]
    assert len(inside) == len(searched.trials()), "what keeps three keeps six"


@pytest.mark.slow
def test_an_interrupted_run_proposes_the_same_as_an_undisturbed_one(
    searched: RunFolder, invented: Invented, search_of: SearchOf, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path / "run", STUDY)
    to_the_end(search_of(run), Arithmetic(invented), interrupted=True)
    assert [(each.number, each.name, each.rungs) for each in run.trials()] == [
        (each.number, each.name, each.rungs) for each in searched.trials()
    ]
    assert [each.architecture.key for each in run.trials()] == [each.architecture.key for each in searched.trials()]


@pytest.mark.slow
def test_a_further_budget_adds_candidates_for_itself_alone(
    invented: Invented, search_of: SearchOf, tmp_path: Path
) -> None:
    few = replace(STUDY, search=replace(STUDY.search, random_trials=1, guided_trials=0, stop_weak=False))
    run = RunFolder.create(tmp_path / "run", few)
    to_the_end(search_of(run), Arithmetic(invented))
    before = run.trials()
    run.write_study(run.study().asking_also(["4ms"]))
    assert run.study().budgets == ("3ms", "4ms", "6ms")
    to_the_end(search_of(run), Arithmetic(invented))
    new = run.trials()[len(before) :]
    assert run.trials()[: len(before)] == before
    assert [(trial.origin, trial.budget_milliseconds) for trial in new] == [("seed", 4.0), ("random", 4.0)]


def test_a_network_that_cannot_be_widened_serves_both_budgets(
    invented: Invented, search_of: SearchOf, tmp_path: Path
) -> None:
    """The network is as large as the study allows, and below both budgets."""
    plan = SearchPlan(seeds=("ndnet29-fcn32",), random_trials=0, guided_trials=0, most_parameters=100_000)
    run = RunFolder.create(tmp_path / "run", replace(STUDY, budgets=("300ms", "600ms"), search=plan))
    source = Proposals(search_of(run), Arithmetic(invented), None)
    trial = source.next()
    assert trial is not None
    assert source.next() is None, "it is found to be for the other one while it trains"
    train(run, source, trial)
    (seed,) = run.trials()
    assert (seed.budget_milliseconds, seed.also_milliseconds) == (300.0, (600.0,))
    assert Shares.of(run.study(), run.study().asked).seeds_left(run.trials()) == []


@pytest.mark.parametrize(
    ("budgets", "told"),
    [
        (("3ms", "6ms"), "6ms is given up, the others go on: expected candidates inside 6ms, but 25 draws"),
        (("6ms",), "no more candidates: expected candidates inside 6ms, but 25 draws"),
    ],
)
def test_candidates_under_way_end_before_further_decisions_when_a_budget_is_given_up(
    budgets: Sequence[str],
    told: str,
    invented: Invented,
    search_of: SearchOf,
    rigid: RigidOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two train at a time: the first has no epoch yet when no candidate is found for the last open budget."""
    few = replace(STUDY.search, seeds=(), guided_trials=0, stop_weak=False)
    run = RunFolder.create(tmp_path / "run", replace(STUDY.asking(budgets), search=few))
    search = search_of(run)
    search = replace(search, workers=replace(search.workers, concurrent=2))
    source = Proposals(search, Arithmetic(invented), None)
    trial = source.next()
    assert trial is not None
    assert not source.waits()
    monkeypatch.setattr(source, "_solver", rigid(search, invented(99.0)))
    assert source.next() is None
    assert list(map(str, unreached(run))) == ["6ms"]
    assert f"note    {told}" in capsys.readouterr().out
    assert source.waits()
    train(run, source, trial)
    assert not source.waits()
    assert source.next() is None, "one finalist is there, at its end"
    assert Proposals(search, Untimed(), None).next() is None, "nor is another one looked for when the run goes on"
    assert f"note    {told}" in capsys.readouterr().out, "which is said again"


def test_a_seed_over_its_budget_but_inside_the_next_begins_with_a_short_training(
    invented: Invented, search_of: SearchOf, rigid: RigidOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The solver finds one network, of four milliseconds, for both."""
    holds_the_seed = {"stages": (3,), "stage.depth": (3, 8)}
    run = RunFolder.create(tmp_path / "run", replace(STUDY, space=holds_the_seed))
    search = search_of(run)
    source = Proposals(search, Arithmetic(invented), None)
    monkeypatch.setattr(source, "_solver", rigid(search, invented(4.0)))
    trial = source.next()
    assert trial is not None
    assert (trial.budget_milliseconds, trial.also_milliseconds) == (6.0, (3.0,))
    assert [(rung.epochs, rung.budget_milliseconds) for rung in trial.rungs] == [(1, 6.0)]
    train(run, source, trial)
    assert len(run.progress(trial, "search").history) == 1


class Untimed:
    """A machine that must not time anything."""

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        raise AssertionError("nothing was to be timed")


def test_a_candidate_over_its_own_budget_is_not_timed_again_for_a_larger_one(
    invented: Invented, search_of: SearchOf, tmp_path: Path
) -> None:
    """The candidate was made for 3 ms, which the study does not ask for any more."""
    plan = replace(STUDY.search, seeds=(), random_trials=1, guided_trials=0)
    search = search_of(RunFolder.create(tmp_path / "run", replace(STUDY.asking(["6ms"]), search=plan)))
    busy = replace(invented(6.1), ci_low_milliseconds=5.5, flagged=("a busy machine",))
    candidate = Candidate(name="random 1", origin="random", architecture=space.load("ndnet29-fcn32"))
    trial = search.trial(1, candidate, busy, "", THREE)
    search.run.write_trial(trial)
    give_up(search.run, SIX, "nothing else is inside", searched=True)
    assert SIX.doubts(busy)
    assert Proposals(search, Untimed(), None).next() is None


@pytest.fixture
def asked(tmp_path: Path, search_of: SearchOf) -> Search:
    study = Study(
        data=DataSpec(size=(32, 48), train_images=2, validation_images=2),
        budgets=("1ms", "5ms", "10ms"),
        target="onnxruntime@cpu:1",
        recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=1, batch_size=2),
        search=SearchPlan(finish_epochs=0, finalists=3),
    )
    return search_of(RunFolder.create(tmp_path / "run", study))


def test_no_network_is_timed_again_for_budgets_with_candidates(searched: RunFolder, search_of: SearchOf) -> None:
    assert _require_reachable(search_of(searched), Narrowest(Untimed(), 0.01, ProgressLine(silent=True))) == []


def test_each_budget_gets_a_winner_in_a_folder_of_its_own(
    asked: Search, invented: Invented, capsys: pytest.CaptureFixture[str]
) -> None:
    give_up(asked.run, Budget.parse("1ms"), "nothing is that fast", searched=False)
    asked = replace(asked, dataset=load(asked.study.data))
    machine = Arithmetic(invented)
    fast, slow = (scale_width(space.load("ndnet29-fcn32"), factor) for factor in (0.10, 0.15))
    for number, (architecture, milliseconds, miou) in enumerate([(fast, 4.0, 0.4), (slow, 9.0, 0.6)], 1):
        candidate = Candidate(name=f"random {number}", origin="random", architecture=architecture)
        trial = asked.trial(number, candidate, invented(milliseconds))
        asked.run.write_trial(trial)
        folder, scores = asked.run.phase_path(trial, "search"), Scores(miou=miou, pixel_accuracy=0.5, class_iou=())
        append_epoch(folder, Epoch(epoch=1, epochs=1, loss=1.0, seconds=1.0, scores=scores))
        save_weights(folder / "weights.safetensors", architecture.build(asked.num_classes).state_dict(), {})
        machine.certified[architecture.key] = milliseconds

    @contextlib.contextmanager
    def meter_of(target: Target, size: tuple[int, int], num_classes: int) -> Iterator[Measures]:
        yield machine

    found = certify_each(asked, meter_of, Stopwatch(asked.run))
    assert {str(budget): each.architecture for budget, each in found.items()} == {"5ms": fast.key, "10ms": slow.key}
    told = capsys.readouterr().out
    assert "certify random 2 for 10ms" in told
    assert "no winner for 1ms: expected a candidate inside 1ms" in told
    for name, architecture in (("5ms", fast), ("10ms", slow)):
        winner = asked.run.root / "winners" / name
        assert {file.name for file in winner.iterdir()} == {
            "architecture.yaml",
            "weights.safetensors",
            "model.onnx",
            "certificate.yaml",
        }
        assert read_certificate(winner).budget == name
        assert load_trained(str(winner), None).architecture == architecture
    (winner / "model.engine").write_text("of nas export")
    certify_each(asked, meter_of, Stopwatch(asked.run))
    assert f"note    {winner} also holds model.engine, not covered by certificate.yaml" in capsys.readouterr().out
    assert (winner / "model.engine").read_text() == "of nas export"
    shutil.copytree(asked.run.root / "winners" / "5ms", asked.run.root / "winners" / ".7ms.unfinished")
    with pytest.raises(UserError, match=r"got a folder with several winners; give one of \S*/10ms, \S*/5ms$"):
        load_trained(str(asked.run.root), None)


def test_the_winner_of_an_earlier_single_budget_joins_the_others(asked: Search) -> None:
    folder = asked.run.winner
    folder.mkdir()
    gather_winners(asked.run, asked.study)
    assert folder.is_dir(), "without a certificate it is none"
    for damaged in (b"", b"\xff", b"architecture: half"):
        (folder / "certificate.yaml").write_bytes(damaged)
        told = gather_winners(asked.run, asked.study)
        assert told.startswith(f"the earlier winner stays in {folder}: ")
        assert str(folder / "certificate.yaml") in told
        assert (folder / "certificate.yaml").read_bytes() == damaged
    known = Path(space.__file__).parents[1] / "nas" / "runs" / "winners" / "camvid-ndnet45"  # holds no checksum
    certificate = replace(read_certificate(known), budget="10ms")
    write_text(folder / "certificate.yaml", strict.dump(replace(certificate, passed=certificate.verdict == "PASS")))
    gather_winners(asked.run, replace(asked.study, budget="10ms", budgets=()))
    assert folder.is_dir(), "there is one budget"
    gather_winners(asked.run, asked.study)
    assert not folder.exists()
    place = asked.run.root / "winners" / "10ms"
    assert read_certificate(place) == replace(certificate, passed=certificate.verdict == "PASS")
    shutil.copytree(place, folder)
    (place / "newer").touch()
    gather_winners(asked.run, asked.study)
    assert not folder.exists()
    assert (place / "newer").is_file(), "what was certified for the same budget since stays"
    shutil.copytree(place, folder)
    (folder / "model.engine").write_text("of nas export")
    assert gather_winners(asked.run, asked.study) == ""
    assert {each.name for each in folder.iterdir()} == {"model.engine", "newer"}, "what is beside a winner stays"
    shutil.move(place / "certificate.yaml", folder)
    assert f"{place} holds something else" in gather_winners(asked.run, asked.study)
    assert (place / "newer").is_file()
    assert (folder / "certificate.yaml").is_file()


@pytest.mark.slow
def test_a_search_for_several_budgets_finds_a_winner_for_each_and_accepts_one_more(tmp_path: Path) -> None:
    def nas(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nas.cli", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=600)

    (tmp_path / "study.yaml").write_text(
        """
data: {name: road_scenes, size: [48, 64], train_images: 12, validation_images: 4}
budgets: [3ms, 0.001ms, 1ms]
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
space: {stages: [2], stage.depth: [1], block: [nonbt]}
search:
  {seeds: [ndnet45-fcn32], random_trials: 1, guided_trials: 1, finalists: 1, finish_epochs: 1,
   company: [erfnet-encoder], pruned: 1, concurrent: 1}
"""
    )
    run = tmp_path / "run"
    done = nas("search", tmp_path / "study.yaml", "--out", run)
    assert done.returncode == 3, done.stdout + done.stderr  # one budget has no winner
    assert "0.001ms is given up, the others go on" in done.stdout
    assert {file.name for file in (run / "winners").iterdir()} == {"1ms", "3ms"}
    for name in ("1ms", "3ms"):
        certificate = read_certificate(run / "winners" / name)
        assert (certificate.budget, certificate.passed) == (name, True)
    before = {trial.architecture.key for trial in RunFolder.open(run).trials()}
    again = nas("search", "--resume", run, "--budget", "2ms")
    assert again.returncode == 3, again.stdout + again.stderr
    assert read_certificate(run / "winners" / "2ms").passed
    new = [trial for trial in RunFolder.open(run).trials() if trial.architecture.key not in before]
    assert new
    assert {trial.budget_milliseconds for trial in new} == {2.0}
    assert nas("show", run / "winners" / "2ms").returncode == 0
    assert "give one of" in nas("show", run).stderr
