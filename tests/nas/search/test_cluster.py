"""Who trains on a cluster is read from its nodes, and what a node lacks is told before the first trial."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import nas
from nas.search.cluster import Resources, question_for_nodes, workers_of
from nas.search.search import Workers
from space.errors import UserError

# Invented resources on this machine: a head that trains nothing, two nodes with GPUs, one that times.
CLUSTER = """
import json, os, sys
from dataclasses import replace
from pathlib import Path
from nas.search.cluster import require_nodes, resources_of_nodes, workers_of
from nas.search.ray_session import joined_ray
from nas.data import Dataset, Split
from nas.data.dataset import label_map
from nas.runs.folder import RunFolder
from nas.study import built_in_study
from ray.cluster_utils import Cluster
from space.errors import UserError

folder = Path(sys.argv[1])
run = RunFolder.create(folder / "run", built_in_study("10ms"))
(folder / "image.png").touch()
here, nowhere = Split(images=(folder / "image.png",), labels=(folder / "image.png",)), Path("/nowhere/at/all.png")
there = Dataset(name="folder", classes=("all",), palette=((0, 0, 0),), label_map=label_map(1), train=here,
                validation=here, size=(16, 16))
gone = replace(there, validation=Split(images=(nowhere,), labels=(nowhere,)))

def answer(work):
    try:
        return work()
    except UserError as error:
        return str(error)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
cluster.add_node(num_cpus=4, num_gpus=2)
cluster.add_node(num_cpus=0, resources={"timing": 1})
cluster.wait_for_nodes()
with joined_ray(cluster.address):
    found = {
        "workers": vars(workers_of(resources_of_nodes(), 0)),
        "ready": answer(lambda: require_nodes(run, there, str(folder), "cpu", print)),
        "no GPU": answer(lambda: require_nodes(run, there, str(folder), "cuda", lambda words: None)),
        "drawn there": answer(lambda: require_nodes(run, gone, None, "cpu", print)),
        "no data": answer(lambda: require_nodes(run, gone, str(folder), "cpu", print)),
    }
cluster.shutdown()
print(json.dumps(found))
"""


@pytest.mark.parametrize(
    ("nodes", "wanted", "expected"),
    [
        ([{"CPU": 4}], 0, Workers(concurrent=4, threads=1, device="cpu")),
        ([{"CPU": 4}], 2, Workers(concurrent=2, threads=2, device="cpu")),
        ([{"CPU": 4}, {"CPU": 2}], 3, Workers(concurrent=3, threads=2, device="cpu")),
        ([{"CPU": 5}, {"CPU": 2}], 2, Workers(concurrent=2, threads=2, device="cpu")),  # 3 would leave the second idle
        ([{"CPU": 2}], 9, Workers(concurrent=2, threads=1, device="cpu")),
        # The machine that searches has no GPU; the others' are what counts.
        ([{"CPU": 8}, {"CPU": 16, "GPU": 4}], 0, Workers(concurrent=4, threads=4, device="cuda")),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 16, "GPU": 4}], 0, Workers(concurrent=5, threads=4, device="cuda")),
        ([{"CPU": 2, "GPU": 8}], 0, Workers(concurrent=2, threads=1, device="cuda")),
        ([{"CPU": 64, "GPU": 8}], 2, Workers(concurrent=2, threads=32, device="cuda")),
        ([{"CPU": 0, "timing": 1}, {"CPU": 2}], 0, Workers(concurrent=2, threads=1, device="cpu")),
    ],
)
def test_device_trainings_and_threads_come_from_the_nodes(
    nodes: list[Resources], wanted: int, expected: Workers
) -> None:
    assert workers_of(nodes, wanted) == expected


@pytest.mark.parametrize("nodes", [[], [{}], [{"CPU": 0}, {"timing": 1}], [{"CPU": 0, "GPU": 4}, {"CPU": 4}]])
def test_what_no_node_can_meet_is_refused_instead_of_waited_for(nodes: list[Resources]) -> None:
    with pytest.raises(UserError, match="expected a node that trains"):
        workers_of(nodes, 0)


def test_a_node_tells_what_it_lacks(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("of this run")
    asked: dict[str, Any] = {
        "version": nas.__version__,
        "run": str(study),
        "study": "of this run",
        "files": [str(study)],
        "on_gpus": False,
    }

    def lacks(**words: Any) -> str:
        problem, note = question_for_nodes()(**words)
        assert note == ""
        return str(problem)

    assert lacks(**asked) == ""
    assert "install the same there" in lacks(**{**asked, "version": "0.0.9"})
    assert "on a disk that all nodes share" in lacks(**{**asked, "run": "/nowhere/study.yaml"})
    assert "on a disk that all nodes share" in lacks(**{**asked, "study": "of another run under the same name"})
    assert "does not see the data, such as /nowhere/image.png" in lacks(**{**asked, "files": ["/nowhere/image.png"]})


def test_a_cluster_of_invented_gpus(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CLUSTER, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["workers"] == {"concurrent": 2, "threads": 2, "device": "cuda"}
    assert found["ready"] is None
    assert found["drawn there"] is None
    if not torch.cuda.is_available():
        assert "has GPUs for Ray, but PyTorch sees none there" in found["no GPU"]
    assert "does not see the data, such as /nowhere/at/all.png" in found["no data"]
