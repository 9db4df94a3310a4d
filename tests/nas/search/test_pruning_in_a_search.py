"""A network over the budget that was trained is pruned into it, fine-tuned, and competes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import space
from nas.report import summarize
from nas.run_folder import RunFolder
from nas.training.weights import load_weights
from space.latency import Budget

STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 16, validation_images: 4}
budget: 1.5ms
target: onnxruntime@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
space: {stages: [2], stage.depth: [1], block: [nonbt]}
search:
  {seeds: [ndnet45-fcn32], random_trials: 0, guided_trials: 0, finalists: 1, finish_epochs: 2, company: [erfnet],
   pruned: 1}
"""


def search(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "nas.cli", "search", *arguments], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_cut_competes_and_is_not_made_twice(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    output = search(str(tmp_path / "study.yaml"), "--out", str(tmp_path / "run"))
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
    assert "prune   erfnet" in output

    before = {trial.architecture.key for trial in run.trials()}
    assert "prune   erfnet" not in search("--resume", str(tmp_path / "run"))
    assert {trial.architecture.key for trial in run.trials()} == before
