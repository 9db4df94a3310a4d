"""`--address`: the same search on a Ray cluster with a second node, and a third one that may time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from nas.runs.certificate import read_certificate
from nas.runs.folder import RunFolder

STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 12, validation_images: 4}
budget: 1.5ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 1, batch_size: 4}
space: {stages: [2], stage.depth: [1, 2], block: [nonbt, sep]}
search: {seeds: [ndnet45-fcn32], random_trials: 1, guided_trials: 0, finalists: 1, finish_epochs: 1}
"""

# The head has no processor to give away, so that every training runs on the second node; a third one may time.
SEARCH = """
import os, subprocess, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=int(sys.argv.pop(1)))
if sys.argv.pop(1) == "timing":
    cluster.add_node(num_cpus=0, resources={"timing": 1})
cluster.wait_for_nodes()
ray.init(address=cluster.address, log_to_driver=False)
print("timing on", *[node["NodeID"] for node in ray.nodes() if "timing" in node["Resources"]], flush=True)
ray.shutdown()
code = subprocess.call([sys.executable, "-m", "nas.cli", "search", *sys.argv[1:], "--address", cluster.address])
cluster.shutdown()
sys.exit(code)
"""


def python(code: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=300)


def searched(folder: Path, kind: str, study: str = STUDY, cores: int = 2) -> subprocess.CompletedProcess[str]:
    (folder / "study.yaml").write_text(study)
    return python(SEARCH, str(cores), kind, folder / "study.yaml", "--out", folder / "run")


@pytest.mark.slow
def test_trainings_run_on_the_second_node(tmp_path: Path) -> None:
    done = searched(tmp_path, "none")
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder.open(tmp_path / "run")
    trained = [trial for trial in run.trials() if trial.feasible]
    assert len(trained) == 2
    assert all(run.progress(trial, "search").done for trial in trained)
    assert (run.winner / "certificate.yaml").is_file()


@pytest.mark.slow
def test_all_networks_are_timed_on_the_timing_node(tmp_path: Path) -> None:
    done = searched(tmp_path, "timing")
    assert done.returncode == 0, done.stdout + done.stderr
    (node,) = [line.removeprefix("timing on ") for line in done.stdout.splitlines() if line.startswith("timing on ")]
    run = RunFolder.open(tmp_path / "run")
    timed = [trial.latency for trial in (*run.trials(), *run.company())]
    timed.append(read_certificate(run.winner).latency)
    assert len(timed) > 13
    assert {latency.environment["node"] for latency in timed} == {node}


@pytest.mark.slow
def test_the_next_candidate_is_measured_while_the_only_training_goes_on(tmp_path: Path) -> None:
    done = searched(tmp_path, "timing", STUDY.replace("finish_epochs: 1", "finish_epochs: 1, concurrent: 1"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train   1 at a time, each with 2 threads" in done.stdout
    trained = re.search(r"train   ndnet45-fcn32 x.* mIoU", done.stdout)
    assert trained is not None
    assert done.stdout.index("time    random 1 ") < trained.start()
    assert "ahead: 1" in (tmp_path / "run" / "order.yaml").read_text()


@pytest.mark.slow
def test_finalists_get_the_cores_that_candidates_leave(tmp_path: Path) -> None:
    study = STUDY.replace("finish_epochs: 1", "finish_epochs: 1, concurrent: 4")
    done = searched(tmp_path, "none", study, cores=4)  # simulated ones
    assert done.returncode == 0, done.stdout + done.stderr
    assert "train   4 at a time, each with 1 thread\n" in done.stdout
    assert "train   2 at a time, each with 2 threads, now that no more candidates are proposed\n" in done.stdout
    assert "threads: 1" in (tmp_path / "run" / "order.yaml").read_text()
    run = RunFolder.open(tmp_path / "run")
    assert any(run.is_done(trial, "finish") for trial in run.trials())


@pytest.mark.slow
def test_pruned_networks_are_scored_on_the_nodes_that_train(tmp_path: Path) -> None:
    study = STUDY.replace("random_trials: 1", "random_trials: 0, company: [erfnet], pruned: 1")
    done = searched(tmp_path, "timing", study)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "prune   erfnet" in done.stdout
    run = RunFolder.open(tmp_path / "run")
    (cut,) = [trial for trial in run.trials() if trial.origin == "pruned"]
    assert run.is_done(cut, "finish")
