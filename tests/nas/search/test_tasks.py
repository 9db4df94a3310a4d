"""Tasks on the nodes of a cluster give the same results as in this process, and errors of the same kind."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

# The head has no processor to give away; one node trains and one times.
CLUSTER = """
import json
import numpy as np, torch
import space
from nas.data import DataSpec, load
from nas.latency import parse_target
from nas.latency.machine import lane
from nas.prune.plan import PruningPlan
from nas.prune.recovery import recover
from nas.prune.tuning import FineTuning
from nas.prune.weighing import weighed
from nas.search.measure.on_cluster import RESOURCE
from nas.search.cluster.configured_ray import ray
from nas.search.cluster.session import joined_ray
from nas.search.search import Workers
from nas.search.cluster.tasks import deployed_on_timing_node, on_node, options_of, recover_on, score_on, weigh_on
from nas.terminal import ProgressLine
from nas.training import load_recipe
from nas.training.evaluation import evaluate
from ray.cluster_utils import Cluster
from space.errors import BudgetError
from space.scale import scale_width

torch.set_num_threads(1)
torch.manual_seed(0)
dataset = load(DataSpec(size=(48, 64), train_images=8, validation_images=4))
network = scale_width(space.load("ndnet45-fcn32"), 0.25).build(dataset.num_classes).eval()
tuning = FineTuning(dataset=dataset, recipe=load_recipe("quick"))
workers = Workers(concurrent=1, threads=1, device="cpu", joined=True)
plan, silent, found = PruningPlan(epochs=0), ProgressLine(silent=True), {}

def refuses():
    raise BudgetError("expected more, got less")

def breaks():
    raise KeyError("ours")

def node():
    return ray.get_runtime_context().get_node_id()

def raised(work):
    try:
        on_node(options_of(workers), work)
    except Exception as error:
        return [type(error).__name__, str(error)]

def same(one, other):
    return all(torch.allclose(one[name], other[name], rtol=1e-4, atol=1e-5) for name in one)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
trains = cluster.add_node(num_cpus=1)
times = cluster.add_node(num_cpus=0, resources={"timing": 1})
cluster.wait_for_nodes()
with joined_ray(cluster.address):
    found["trains"] = on_node(options_of(workers), node) == trains.node_id
    found["times"] = on_node({"num_cpus": 0, "resources": {RESOURCE: 1}}, node) == times.node_id
    found["refused"], found["broken"] = raised(refuses), raised(breaks)
    there, here = (way(network, plan, tuning, print, silent) for way in (weigh_on(workers), weighed))
    found["scores"] = bool(np.allclose(there.scores, here.scores, rtol=1e-3))
    found["damage"] = sorted(there.damage.groups) == sorted(here.damage.groups)
    states = []
    for way in (recover_on(workers), recover):
        fresh = network.architecture.build(dataset.num_classes)
        fresh.load_state_dict(network.state_dict())
        way(fresh.eval(), network, 0, tuning, print, silent)
        states.append(fresh.state_dict())
    found["recovered"] = same(*states) and not same(states[0], network.state_dict())
    found["miou"] = [each.miou for each in (score_on(workers)(network, dataset), evaluate(network, dataset))]
    shipped = deployed_on_timing_node(parse_target("onnxruntime:int8@cpu:1"), network, dataset)
    found["form"], found["bytes"] = shipped.form, len(shipped.graph)
cluster.shutdown()
print(json.dumps(found))
"""


@pytest.mark.slow
def test_tasks_on_a_cluster_give_the_same_results_and_errors() -> None:
    done = subprocess.run([sys.executable, "-c", CLUSTER], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["trains"]
    assert found["times"]
    assert found["refused"] == ["BudgetError", "expected more, got less"]
    kind, words = found["broken"]
    assert kind == "OSError"
    assert "breaks on a node of the cluster failed: " in words
    assert "\n" not in words
    assert found["scores"]
    assert found["damage"]
    assert found["recovered"]
    assert found["miou"][0] == pytest.approx(found["miou"][1], abs=1e-6)
    assert found["form"] == "onnxruntime:int8@cpu:1"
    assert found["bytes"] > 1000
