"""Files of a training after every epoch, with processes killed between any two writes, and with damaged files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from nas.data import Dataset
from nas.runs.epochs import commit_epoch, go_on
from nas.runs.trained import CHECKPOINT, WEIGHTS
from nas.runs.trial import PROGRESS, append_epoch, read_progress
from nas.storage import files
from nas.training import Recipe
from nas.training.checkpoint import Checkpoint, save_checkpoint
from nas.training.trainer import Trainer
from nas.training.weights import load_weights, save_weights
from space import Architecture, UserError

EPOCHS = 2
WRITES = 3  # in an epoch
RECIPE = Recipe(optimizer="adamw", learning_rate=0.01, epochs=EPOCHS, batch_size=4, crop=(32, 48), score_every=EPOCHS)
Make = Callable[[], Trainer]


class Killed(BaseException):
    """Simulates the end of the process."""


@pytest.fixture(scope="module")
def make(dataset: Dataset, architecture: Architecture) -> Make:
    return lambda: Trainer(architecture, dataset, RECIPE, threads=1)


def train(make: Make, folder: Path) -> None:
    """Train to the end, as a search does."""
    trainer = go_on(make, folder)
    while not trainer.finished:
        trainer.run_epoch()
        save_weights(folder / WEIGHTS, trainer.weights(), {"architecture": trainer.architecture.key})
        commit_epoch(folder, trainer)


@pytest.fixture(scope="module")
def whole(make: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole")
    train(make, folder)
    return folder


def test_the_first_epoch_is_recorded_without_scores(whole: Path) -> None:
    first, last = read_progress(whole).history
    assert (first.scores, first.miou) == (None, None)
    assert last.scores is not None
    assert read_progress(whole).miou == last.miou == last.scores.miou
    assert (whole / PROGRESS).read_text().count("scores: null") == 1


def test_a_record_without_scores_of_the_last_epoch_is_damaged(whole: Path, tmp_path: Path) -> None:
    first = read_progress(whole).history[0]
    append_epoch(tmp_path, first)
    progress = read_progress(tmp_path)
    assert (len(progress.history), progress.miou, progress.done) == (1, None, False), "it goes on"
    text = (tmp_path / PROGRESS).read_text()
    (tmp_path / PROGRESS).write_text(text.replace("epoch: 1\n", f"epoch: {EPOCHS}\n"))
    assert read_progress(tmp_path).history == ()
    with pytest.raises(UserError, match=r"scores: expected those of epoch 2, the last one, got none"):
        replace(first, epoch=EPOCHS)


def test_the_waiting_time_of_each_epoch_is_recorded(whole: Path) -> None:
    history = read_progress(whole).history
    assert all(0 < epoch.waited_for_data <= 1 for epoch in history)
    assert all(0 <= epoch.waited_for_lane <= 1 for epoch in history)
    recorded = (whole / PROGRESS).read_text()
    assert recorded.count("waited_for_data") == EPOCHS


def same(one: Path, other: Path) -> bool:
    """Whether two folders hold the same weights and the same epochs."""
    left, right = load_weights(one / WEIGHTS), load_weights(other / WEIGHTS)
    losses = [[(epoch.loss, epoch.scores) for epoch in read_progress(each).history] for each in (one, other)]
    return losses[0] == losses[1] and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.share(3)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("write", range(EPOCHS * WRITES))
def test_a_training_killed_around_any_write_ends_the_same(
    write: int, after: bool, make: Make, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    move, count = files.os.replace, iter(range(100))

    def until(source: Path, target: Path) -> None:
        last = next(count) == write
        if after or not last:
            move(source, target)
        if last:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", until)
        with pytest.raises(Killed):
            train(make, tmp_path)
    progress = read_progress(tmp_path)
    assert len(progress.history) == (write + after) // WRITES
    if progress.done:
        assert same(tmp_path, whole), "what counts as finished is finished"
    train(make, tmp_path)
    assert same(tmp_path, whole)


@pytest.mark.share(3)
@pytest.mark.parametrize("file", [CHECKPOINT, PROGRESS])
@pytest.mark.parametrize("damage", ["cut", "overwritten", "one bit", "empty"])
def test_a_training_with_a_damaged_file_starts_anew_and_ends_the_same(
    file: str, damage: str, make: Make, whole: Path, tmp_path: Path
) -> None:
    for each in whole.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    content = bytearray((tmp_path / file).read_bytes())
    middle = len(content) // 2
    content[middle] ^= 0x80 if damage == "one bit" else 0
    changed = {"cut": content[:middle], "overwritten": b"\xff" * middle, "one bit": content, "empty": b""}[damage]
    (tmp_path / file).write_bytes(changed)
    train(make, tmp_path)
    assert same(tmp_path, whole)


def test_a_checkpoint_of_another_version_is_refused_and_kept(make: Make, whole: Path, tmp_path: Path) -> None:
    """Its checksum is right, but this version cannot resume it: its optimiser has one group more."""
    for each in whole.iterdir():
        (tmp_path / each.name).write_bytes(each.read_bytes())
    state = torch.load(whole / CHECKPOINT, weights_only=True)
    state["optimizer"]["param_groups"].append({**state["optimizer"]["param_groups"][0], "params": []})
    history = make()
    history.restore(whole / CHECKPOINT)
    save_checkpoint(tmp_path / CHECKPOINT, Checkpoint(**{**state, "history": history.history}))
    with pytest.raises(UserError, match=r"got that of another version .*; continue with the version that wrote it"):
        go_on(make, tmp_path)
    assert len(read_progress(tmp_path).history) == EPOCHS


def test_a_flipped_bit_in_weights_is_noticed(whole: Path, tmp_path: Path) -> None:
    content = bytearray((whole / WEIGHTS).read_bytes())
    content[-100] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(files.DamagedError, match="checksum mismatch"):
        load_weights(tmp_path / WEIGHTS)


def test_temporary_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a" / "kept.yaml", "kept")
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / "a" / f".kept.yaml.{ended.pid}.tmp").write_text("half")
    files.clear_unfinished(tmp_path)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["kept.yaml"]
