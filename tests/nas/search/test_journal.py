"""The Optuna journal of a run: Optuna can read it, and no run needs it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from nas.data import DataSpec
from nas.latency.meter import Measures
from nas.runs.folder import JOURNAL, RunFolder
from nas.runs.trial import Epoch, Trial, append_epoch
from nas.search.propose.journal import STUDY, Journal
from nas.search.propose.proposals import Proposals
from nas.search.propose.sampler import Outcome
from nas.search.search import Search
from nas.study import SearchPlan, Study
from nas.training import Recipe, Scores
from space import UserError

SIZE = (180, 240)
CLASSES = 11
ASKED = Study(
    data=DataSpec(size=SIZE),
    budget="10ms",
    target="onnxruntime@cpu:1",
    recipe=Recipe(optimizer="adamw", learning_rate=0.01, epochs=4, batch_size=4),
    space={"stages": (3,), "stage.depth": (3, 8)},  # few: every width is found by hundreds of estimates
    search=SearchPlan(seeds=("ndnet29-fcn32",), random_trials=4, guided_trials=1, stop_weak=False),
)


@pytest.fixture(scope="module")
def proposals(arithmetic: Measures, search_of: Callable[[RunFolder], Search]) -> Callable[[RunFolder], Proposals]:
    return lambda run: Proposals(search_of(run), arithmetic, None)


def train(run: RunFolder, source: Proposals, trial: Trial, epochs: int, failed: str = "") -> None:
    scores = Scores(miou=0.1 * trial.number, class_iou=(0.3,) * CLASSES, pixel_accuracy=0.3)
    for number in range(1, epochs + 1):
        epoch = Epoch(epoch=number, epochs=4, loss=1.0, seconds=1.0, scores=scores)
        append_epoch(run.phase_path(trial, "search"), epoch)
    source.finished(trial, failed=failed)
    if epochs < 4 and not failed:
        run.write_trial(replace(trial, stopped=True))


def known(run: RunFolder) -> list[FrozenTrial]:
    """The trials that Optuna reads from the journal."""
    storage = JournalStorage(JournalFileBackend(str(run.root / JOURNAL)))
    return optuna.load_study(study_name=STUDY, storage=storage).trials


def said(run: RunFolder) -> set[tuple[object, ...]]:
    """The contents of the journal, except for times of writing."""
    return {
        (each.state, each.value, *each.params.items(), *each.constraints.items(), each.user_attrs["key"])
        for each in known(run)
    }


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, proposals: Callable[[RunFolder], Proposals]) -> RunFolder:
    """A run with a whole training, a stopped one and one that broke; three more are to come."""
    run = RunFolder.create(tmp_path_factory.mktemp("begun") / "run", ASKED)
    source = proposals(run)
    for epochs, failed in ((4, ""), (1, ""), (1, "a loss of NaN")):
        trial = source.next()
        assert trial is not None
        train(run, source, trial, epochs, failed)
    return run


@pytest.fixture
def run(begun: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of that run, which a test may change."""
    shutil.copytree(begun.root, tmp_path / "run")
    return RunFolder.open(tmp_path / "run")


def test_optuna_reads_how_trials_ended(run: RunFolder) -> None:
    whole, stopped, broken = sorted(known(run), key=lambda each: each.user_attrs["number"])
    assert (whole.state, whole.value) == (TrialState.COMPLETE, pytest.approx(0.1))
    assert (stopped.state, stopped.value) == (TrialState.PRUNED, None)
    assert stopped.intermediate_values == {250: pytest.approx(0.2)}
    assert (broken.state, broken.user_attrs["failed"]) == (TrialState.FAIL, "a loss of NaN")
    assert all(each.constraints["latency"] <= 0 for each in (whole, stopped, broken))
    by_key = {trial.architecture.key: trial for trial in run.trials()}
    for each in (whole, stopped, broken):
        trial = by_key[each.user_attrs["key"]]
        assert each.user_attrs["answers"] == dict(trial.genotype)
        assert each.user_attrs["milliseconds"] == trial.latency.p50_milliseconds
        assert each.params


def test_a_candidate_over_the_budget_violates_a_constraint(
    tmp_path: Path, proposals: Callable[[RunFolder], Proposals]
) -> None:
    asked = replace(ASKED, budget="0.101ms", search=replace(ASKED.search, random_trials=0, guided_trials=0))
    run = RunFolder.create(tmp_path / "run", asked)
    assert proposals(run).next() is None
    (over,) = known(run)
    assert (over.state, over.value) == (TrialState.PRUNED, None)
    assert over.constraints["latency"] > 0


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-40])


def scribble(file: Path) -> None:
    file.write_text("this is no journal\n")


def append_another(file: Path) -> None:
    storage = JournalStorage(JournalFileBackend(str(file)))
    optuna.load_study(study_name=STUDY, storage=storage).add_trial(optuna.trial.create_trial(value=1.0))


@pytest.mark.share(3)
@pytest.mark.parametrize("harm", [Path.unlink, cut, scribble, append_another, lambda file: file.write_text("")])
def test_a_damaged_journal_is_written_anew(
    run: RunFolder, proposals: Callable[[RunFolder], Proposals], harm: Callable[[Path], object]
) -> None:
    before = said(run)
    harm(run.root / JOURNAL)
    (run.root / f"{JOURNAL}.lock").touch()  # of a process that was killed while it wrote
    source = proposals(run)
    assert said(run) == before
    trial = source.next()
    assert trial is not None
    train(run, source, trial, 4)
    assert len(known(run)) == len(before) + 1
    assert not list(run.root.glob(f"*{JOURNAL}?*"))


def test_an_intact_journal_goes_on_as_the_same_file(
    run: RunFolder, proposals: Callable[[RunFolder], Proposals]
) -> None:
    before = (run.root / JOURNAL).read_bytes()
    proposals(run)
    assert (run.root / JOURNAL).read_bytes() == before


def test_a_changed_budget_changes_the_constraint(run: RunFolder, proposals: Callable[[RunFolder], Proposals]) -> None:
    run.write_study(replace(ASKED, budget="5ms"))
    proposals(run)
    for each in known(run):
        assert each.constraints["latency"] == pytest.approx(each.user_attrs["milliseconds"] / 5 - 1)


def test_a_trial_that_cannot_be_written_to_the_journal_ends_no_search(run: RunFolder) -> None:
    def outcome(trial: Trial) -> Outcome:
        raise UserError("expected a score")

    said: list[str] = []
    journal = Journal(run, ASKED.architectures(), outcome, said.append)
    journal.hold_to(run.trials())
    journal.ended(run.trials()[0])
    (reason,) = said
    assert "UserError: expected a score" in reason


def test_a_journal_that_cannot_be_written_ends_no_search(
    run: RunFolder, proposals: Callable[[RunFolder], Proposals], capsys: pytest.CaptureFixture[str]
) -> None:
    (run.root / JOURNAL).unlink()
    (run.root / JOURNAL).mkdir()
    source = proposals(run)
    trial = source.next()
    assert trial is not None
    train(run, source, trial, 4)
    assert run.best_miou(trial) == pytest.approx(0.1 * trial.number)
    assert capsys.readouterr().out.count("is not written any more") == 1
