"""Searches on a cluster without a suitable node, with lost nodes, and with nodes that join later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nas.runs.folder import RunFolder

STUDY = """
data: {name: road_scenes, size: [48, 64], train_images: 8, validation_images: 2}
budget: 1.5ms
target: null@cpu:1
recipe: {optimizer: adamw, learning_rate: 0.006, epochs: 6, batch_size: 4}
space: {stages: [2], stage.depth: [1, 2], block: [nonbt, sep]}
search: {seeds: [ndnet45-fcn32], random_trials: 1, guided_trials: 0, finalists: 1, finish_epochs: 6}
"""

# A head that trains nothing; then a node of another mount namespace, which does not see the run's folder; two nodes, of
# which one is killed during a training and the other during the finish; and a node that joins afterwards.
CLUSTER = """
import json, os, subprocess, sys, time
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
import ray
from pathlib import Path
from ray.cluster_utils import Cluster

folder = Path(sys.argv[1])
shared = folder / "shared"
shared.mkdir()
run = shared / "run"
impatient = (
    "import sys; from nas.cli import main; from nas.search.cluster import nodes; nodes.LOST_SECONDS = 3.0; "
    "sys.exit(main(sys.argv[1:]))"
)

def search(*words):
    command = [sys.executable, "-c", impatient, "search", *words, "--address", cluster.address]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

def begun():
    return search(str(folder / "study.yaml"), "--out", str(run))

def end(process):
    said, _ = process.communicate()
    return [process.returncode, said]

def wait(happened):
    until = time.monotonic() + 600
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.05)

def trains(count):
    return lambda: sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in ray.nodes()) == count

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
ray.init(address=cluster.address, log_to_driver=False)
found = {"none trains": end(begun())}

elsewhere = ["unshare", "-rm", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(shared)]
if not subprocess.run([*elsewhere, "true"], capture_output=True).returncode:
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--address", cluster.address, "--num-cpus", "1"]
    with subprocess.Popen([*elsewhere, *start, "--block"], stdout=subprocess.DEVNULL) as blind:
        wait(trains(1))
        found["blind"] = end(begun())
        blind.terminate()
    wait(trains(0))

def kill_where_trained(phase):
    # the node of the first training that has finished an epoch, whose owner is a child of its raylet
    wait(lambda: list(run.glob(f"*/*/{phase}/progress.yaml")))
    owner = next(run.glob(f"*/*/{phase}/.owner")).read_text().split()[1]
    raylet = int(Path(f"/proc/{owner}/stat").read_text().rpartition(")")[2].split()[1])
    (node,) = [each for each in nodes if each.all_processes["raylet"][0].process.pid == raylet]
    nodes.remove(node)
    cluster.remove_node(node, allow_graceful=False)

nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
wait(trains(2))
with begun() as process:
    try:
        kill_where_trained("search")
        kill_where_trained("finish")
        found["lost"] = end(process)
    finally:
        process.kill()
cluster.add_node(num_cpus=1)
wait(trains(1))
found["resumed"] = end(search("--resume", str(run)))
ray.shutdown()
cluster.shutdown()
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lost")


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """The exit code and the output of each search."""
    (folder / "study.yaml").write_text(STUDY)
    done = subprocess.run([sys.executable, "-c", CLUSTER, folder], capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.slow
def test_a_cluster_without_a_node_that_trains_is_refused_in_one_line(found: dict[str, Any]) -> None:
    code, said = found["none trains"]
    assert code == 2, said
    assert said.splitlines()[-1] == (
        "nas search: expected a node that trains, but none of the cluster's nodes (1) offers a processor; start one "
        "with `ray start --address HOST:PORT --num-cpus N`"
    )


@pytest.mark.slow
def test_a_node_that_does_not_see_the_run_is_refused_before_any_timing(found: dict[str, Any], folder: Path) -> None:
    if "blind" not in found:
        pytest.skip("no mount namespaces here")
    code, said = found["blind"]
    assert code == 2, said
    line = said.splitlines()[-1]
    assert line.startswith("nas search: the cluster's node ")
    assert line.endswith(
        f"does not see the run's {folder}/shared/run/study.yaml; give --out a folder on a disk that all nodes share"
    )
    assert "time  " not in said


@pytest.mark.slow
def test_trainings_of_a_lost_node_go_on_at_another_node_or_wait_for_one(found: dict[str, Any], folder: Path) -> None:
    code, said = found["lost"]
    assert code == 2, said
    told = said.splitlines()
    lost = [number for number, line in enumerate(told) if "  lost    the cluster's node " in line]
    assert len(lost) == 2, said
    assert all("others go on with its trainings" in told[number] for number in lost)
    ends = [number for number, line in enumerate(told) if "  train   " in line and "epoch 6/6" in line]
    assert len(ends) == 2, said
    assert max(ends) < lost[1], "both candidates are trained by the node that is left"  # Ray may report the first late
    waits = "wait    for a node with 1 processor: the cluster has none any more; see `ray status`"
    assert sum(line.endswith(waits) for line in told) == 1
    assert told[-1].startswith("nas search: the cluster has no node with 1 processor any more, and none came within ")
    assert told[-1].endswith(f"then go on with: nas search --resume {folder}/shared/run")
    assert not any(words in said for words in ("Traceback", "(raylet)")), said

    code, said = found["resumed"]
    assert code == 0, said
    run = RunFolder.open(folder / "shared" / "run")
    trained = [trial for trial in run.trials() if trial.feasible]
    assert len(trained) == 2
    assert not any(trial.failed for trial in trained)
    assert all(len(run.progress(trial, "search").history) == 6 for trial in trained)
    assert (run.winner / "certificate.yaml").is_file()
