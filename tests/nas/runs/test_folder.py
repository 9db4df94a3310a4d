"""A run's folder: its name, its paths, and files that are damaged or from earlier versions."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import space
from nas.data import DataSpec
from nas.latency.record import Latency
from nas.runs.folder import RunFolder
from nas.runs.initial_weights import hold_to_initial_weights
from nas.runs.trial import Trial
from nas.study import built_in_study
from space import UserError

MEASURED = Latency(
    p50_milliseconds=5.0,
    p90_milliseconds=5.0,
    p99_milliseconds=5.0,
    ci_low_milliseconds=5.0,
    ci_high_milliseconds=5.0,
    samples=20,
    ratio=1.0,
    ratio_low=1.0,
    ratio_high=1.0,
    reference_milliseconds=5.0,
    raw_p50_milliseconds=5.0,
    target="null@cpu:1",
    height=180,
    width=240,
    scope="an invented device",
)
TRIAL = Trial(
    number=1,
    name="erfnet x1.00",
    origin="seed",
    architecture=space.load("erfnet"),
    latency=MEASURED,
    feasible=True,
    budget_milliseconds=10.0,
    parameters=1,
    multiply_adds=1,
)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", built_in_study("10ms"))


def test_runs_that_begin_in_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: RunFolder.claim(tmp_path / "runs" / "night").root.name, range(8)))
    assert sorted(folders) == ["night", *(f"night-{number}" for number in range(2, 9))]


def test_data_named_from_the_current_folder_are_found_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path)
    study = replace(built_in_study("10ms"), data=DataSpec(name="folder", root="own", size=(48, 64)))
    run = RunFolder.create(Path("runs/night"), study)
    assert run.study().data.root == str(tmp_path / "own")


def test_a_failure_that_was_no_verdict_is_forgotten(run: RunFolder) -> None:
    run.write_trial(replace(TRIAL, failed="its process died 4 times"))
    assert run.trials() == (TRIAL,)
    diverged = replace(TRIAL, failed="epoch 1, step 2: expected finite numbers, got a loss of nan")
    run.write_trial(diverged)
    assert run.trials() == (diverged,)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\x00", b"number: 1\nname", b"number: many\n", b"- \x00"])
@pytest.mark.parametrize("read", [RunFolder.trials, RunFolder.next_number], ids=["trials", "next"])
def test_a_damaged_trial_is_named(damage: bytes, read: Callable[[RunFolder], object], run: RunFolder) -> None:
    run.write_trial(TRIAL)
    (run.trial_path(TRIAL) / "trial.yaml").write_bytes(damage)
    with pytest.raises(UserError, match=r"trials/\w{12}/trial\.yaml"):
        read(run)


@pytest.mark.parametrize("damage", [b"", b"\xff\xfe\x00", b"history:\n- {epoch: 2}", b"history: []"])
def test_damaged_epochs_are_dropped(damage: bytes, run: RunFolder) -> None:
    folder = run.phase_path(TRIAL, "search")
    folder.mkdir(parents=True)
    (folder / "progress.yaml").write_bytes(damage)
    assert run.progress(TRIAL, "search").history == ()
    assert not run.is_done(TRIAL, "search")


def test_a_study_can_be_withdrawn_only_before_the_first_trial(run: RunFolder, tmp_path: Path) -> None:
    run.write_trial(TRIAL)
    run.withdraw()
    assert run.study() == built_in_study("10ms").begun()
    (run.trial_path(TRIAL) / "trial.yaml").unlink()
    init = tmp_path / "init.pth"
    torch.save({"stem.conv.weight": torch.zeros(1)}, init)
    hold_to_initial_weights(run.root, str(init), begun=False, trained=False)
    assert {file.name for file in run.root.iterdir()} >= {"init.yaml", "init.safetensors"}
    run.withdraw()
    assert list(run.root.iterdir()) == []


def test_unusable_initial_weights_are_refused_before_the_run_keeps_them(run: RunFolder, tmp_path: Path) -> None:
    init = tmp_path / "init.pth"
    torch.save({"nobody.weight": torch.zeros(1)}, init)
    before = list(run.root.iterdir())
    with pytest.raises(UserError, match="rename the tensors"):
        hold_to_initial_weights(run.root, str(init), begun=False, trained=False)
    assert list(run.root.iterdir()) == before
