"""Workers on a cluster follow from its nodes, and requirements that a node lacks are reported before any trial."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nas
from nas.errors import HaltedError
from nas.latency import parse_target
from nas.latency.record import Latency
from nas.runs.folder import Order, RunFolder
from nas.search.cluster.nodes import Resources
from nas.search.cluster.workers import most_at_once, question_for_nodes, workers_of
from nas.search.measure.on_cluster import ClusterTiming
from nas.search.search import Search, Workers, ahead_of
from nas.search.train.placement import with_more_threads
from nas.study import SearchPlan, built_in_study
from space.errors import UserError

# Invented resources on this machine: a head that trains nothing, two nodes with GPUs, one that times. The timing node
# has a cache of its own, as on another machine; a latency table is made there first, of invented ratios.
CLUSTER = """
import functools, json, os, sys, threading
from dataclasses import replace
from pathlib import Path
from nas.latency import parse_target
from nas.latency.estimates import calibration
from nas.latency.machine import device_key
from nas.search.cluster.workers import require_nodes, resources_of_nodes, workers_of
from nas.search.measure import on_cluster as cluster_timing
from nas.search.measure.on_cluster import timing_of_cluster
from nas.search.cluster.session import joined_ray
from nas.search.measure.timing import local_timing
from nas.data import Dataset, Split
from nas.data.dataset import label_map
from nas.runs.folder import RunFolder
from nas.study import built_in_study
from ray.cluster_utils import Cluster
from space import strict
from nas.errors import TargetError
from space.errors import UserError

folder = Path(sys.argv[1])
asked = ((parse_target("null@cpu:1"),), (48, 64), 3)

def kept(timing):
    table = timing.kept_table()
    return None if table is None else strict.plain(table)

def sample(index):
    key = calibration.draw(index, *asked[1:]).key
    return calibration.MeasuredNetwork(index=index, key=key, num_classes=3, ratio=1 + index / 10,
                                       reference_milliseconds=1.0, seconds=1.0, flagged=False)

with local_timing(*asked, patience_seconds=0) as timing:
    os.environ["XDG_CACHE_HOME"] = str(folder / "node")
    device = device_key.name_of(device_key.key_of(timing.environment, timing.size))
    samples = device_key.folder("tables") / device / "samples.jsonl"
    samples.parent.mkdir(parents=True)
    with samples.open("w") as kept_samples:
        for index in range(20):
            print(json.dumps(strict.plain(sample(index))), file=kept_samples)
    made = strict.plain(calibration.calibrate(timing).table)
    os.environ["XDG_CACHE_HOME"] = str(folder / "driver")
    of_this_machine = kept(timing)
run = RunFolder.create(folder / "run", built_in_study("10ms"))
(folder / "image.png").touch()
here, nowhere = Split(images=(folder / "image.png",), labels=(folder / "image.png",)), Path("/nowhere/at/all.png")
there = Dataset(name="folder", classes=("all",), palette=((0, 0, 0),), label_map=label_map(1), train=here,
                validation=here, size=(16, 16))
gone = replace(there, validation=Split(images=(nowhere,), labels=(nowhere,)))

def answer(work):
    try:
        return work()
    except (TargetError, UserError) as error:
        return str(error)

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=2, num_gpus=1)
os.environ["XDG_CACHE_HOME"] = str(folder / "node")
cluster.add_node(num_cpus=0, resources={"timing": 1})
os.environ["XDG_CACHE_HOME"] = str(folder / "driver")
cluster.wait_for_nodes()
with joined_ray(cluster.address):
    found = {
        "workers": vars(workers_of(resources_of_nodes(), 0)),
        "ready": answer(lambda: require_nodes(run.study_path, there, str(folder), "cpu", print)),
        "no GPU": answer(lambda: require_nodes(run.study_path, there, str(folder), "cuda", lambda words: None)),
        "drawn there": answer(lambda: require_nodes(run.study_path, gone, None, "cpu", print)),
        "no data": answer(lambda: require_nodes(run.study_path, gone, str(folder), "cpu", print)),
        "made": made,
        "of this machine": of_this_machine,
    }
    timing_of = functools.partial(timing_of_cluster(), patience_seconds=0)
    said = threading.Event()

    class Said:  # what a second search says while the first one times
        def write(self, words):
            if "waiting for the cluster's node that times" in words:
                said.set()
        def flush(self):
            pass

    def second():
        with timing_of(*asked):
            pass

    cluster_timing.WAIT_SECONDS, sys.stderr = 0.2, Said()
    with timing_of(*asked) as timing:
        found["of the node"] = kept(timing)
        said.clear()
        waiting = threading.Thread(target=second)
        waiting.start()
        found["heard"] = said.wait(60)
    waiting.join()
    sys.stderr = sys.__stderr__
    found["refused"] = answer(lambda: timing_of((parse_target("null@cpu:99"),), *asked[1:]).__enter__())
cluster.shutdown()
print(json.dumps(found))
"""

# Two nodes with a GPU each, invented too, which trainings share.
SHARED = """
import json
from dataclasses import replace
from nas.search.cluster.workers import probe_on_cluster, resources_of_nodes, workers_of
from nas.search.cluster.configured_ray import ray
from nas.search.cluster.session import joined_ray
from nas.study import built_in_study
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=2, num_gpus=1)
cluster.wait_for_nodes()
found = {}
with joined_ray(cluster.address):
    small = built_in_study("10ms")
    small = replace(small, data=replace(small.data, size=(48, 64)), search=replace(small.search, seeds=("erfnet",)),
                    recipe=replace(small.recipe, crop=None, batch_size=2))
    probed = probe_on_cluster(small, 3, "cpu")
    found["probed"] = [probed.count, probed.words]
    shared = workers_of(resources_of_nodes(), 0, 2)

    class Training:
        def place(self):
            return [ray.get_runtime_context().get_node_id(), ray.get_gpu_ids()]

    options = {"num_cpus": shared.threads, "num_gpus": shared.gpu_share}
    trainings = [ray.remote(**options)(Training).remote() for _ in range(shared.concurrent + 1)]
    asked_for = [each.place.remote() for each in trainings]
    ray.wait(asked_for, num_returns=shared.concurrent, timeout=200)
    begun, waits = ray.wait(asked_for, num_returns=len(asked_for), timeout=1)
    found["places"] = sorted(ray.get(begun))
    found["trainings that wait"] = len(waits)
cluster.shutdown()
print(json.dumps(found))
"""

# Two timing nodes, one after the other, each killed during a request; a third one never comes.
LOST = """
import functools, json, time
import ray
import space
from nas.latency import parse_target
from nas.search.measure import on_cluster as cluster_timing
from nas.search.measure.on_cluster import timing_of_cluster
from nas.search.cluster.session import joined_ray
from ray.cluster_utils import Cluster
from space.scale import scale_width

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
first = cluster.add_node(num_cpus=0, resources={"timing": 1})
cluster.wait_for_nodes()
found, network = {}, scale_width(space.load("ndnet45-fcn32"), 0.25)
cluster_timing.WAIT_SECONDS, cluster_timing.LOST_SECONDS = 5.0, 3.0
with joined_ray(cluster.address):
    timing_of = functools.partial(timing_of_cluster(), patience_seconds=0)
    with timing_of((parse_target("null@cpu:1"),), (48, 64), 3) as timing:
        before = timing.measure(network)
        cluster.remove_node(first, allow_graceful=False)
        second = cluster.add_node(num_cpus=0, resources={"timing": 1})
        after = timing.measure(network)
        found["nodes"] = [each.environment["node"] for each in (before, after)]
        found["milliseconds"] = [each.p50_milliseconds for each in (before, after)]
        cluster.remove_node(second, allow_graceful=False)
        while any(node["Alive"] and "timing" in node["Resources"] for node in ray.nodes()):
            time.sleep(0.2)  # Ray takes a while to notice
        try:
            timing.measure(network)
        except OSError as error:
            found["lost"] = str(error)
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
        # The machine that searches has no GPU; the GPUs of other nodes count.
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


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        # A quarter of 6, 16 and 36 whole trainings, at least two; the remaining cores make each training faster.
        (1, ((1, 1), (1, 1), (1, 1))),
        (2, ((2, 1), (2, 1), (2, 1))),
        (4, ((2, 2), (4, 1), (4, 1))),
        (7, ((2, 3), (3, 2), (7, 1))),
        (8, ((2, 4), (4, 2), (8, 1))),
        (15, ((2, 7), (4, 3), (7, 2))),
        (16, ((2, 8), (4, 4), (8, 2))),
        (64, ((2, 32), (4, 16), (9, 7))),
    ],
)
def test_many_cores_train_at_most_a_quarter_of_a_plan_at_a_time(
    cores: int, expected: tuple[tuple[int, int], ...]
) -> None:
    built_in = built_in_study("10ms")
    plans = built_in.search, SearchPlan(), SearchPlan(random_trials=8, guided_trials=24)
    for plan, (concurrent, threads) in zip(plans, expected, strict=True):
        most = most_at_once(replace(built_in, search=plan))
        found = workers_of([{"CPU": cores}], plan.concurrent, most=most)
        assert found == Workers(concurrent=concurrent, threads=threads, device="cpu")
    assert workers_of([{"CPU": cores}], 64, most=2).concurrent == cores, "as many as a study asks for"


def test_each_budget_has_candidates_of_its_own() -> None:
    study = replace(built_in_study("10ms"), search=SearchPlan())
    several = study.asking(("10ms", "20ms", "40ms"))
    assert (most_at_once(study), most_at_once(several)) == (4, 6), "of 16, and of 24: seeds are scaled to each"


def test_a_plan_does_not_limit_trainings_on_gpus() -> None:
    node: Resources = {"CPU": 64, "GPU": 8}
    assert workers_of([node], 0, most=2, threads=1) == workers_of([node], 0)


@pytest.mark.parametrize(
    ("cores", "concurrent", "threads"),
    [(16, 4, 4), (64, 4, 4), (8, 2, 4), (2, 1, 2)],  # the last node has fewer than four
)
def test_a_resumed_run_trains_with_its_first_number_of_threads(cores: int, concurrent: int, threads: int) -> None:
    found = workers_of([{"CPU": cores}], 0, most=4, threads=4)
    assert found == Workers(concurrent=concurrent, threads=threads, device="cpu")


@pytest.mark.parametrize("threads", [0, 4])
@pytest.mark.parametrize("most", [0, 2])
@pytest.mark.parametrize("wanted", [0, 1, 3, 40])
@pytest.mark.parametrize(
    "nodes",
    [
        [{"CPU": 2}],
        [{"CPU": 4}, {"CPU": 4}, {"CPU": 4}],
        [{"CPU": 16}, {"CPU": 3}],
        [{"CPU": 8}, {"CPU": 6, "GPU": 2}, {"CPU": 1, "GPU": 4}],
    ],
)
def test_all_trainings_find_room_each_on_one_node(
    nodes: list[dict[str, float]], wanted: int, most: int, threads: int
) -> None:
    found = workers_of(nodes, wanted, 3, most=most, threads=threads)
    gpus = any("GPU" in node for node in nodes)
    assert found.device == ("cuda" if gpus else "cpu")
    assert 1 <= found.per_gpu <= (3 if gpus else 1)
    assert 1 <= found.concurrent <= (wanted or 40)
    rooms = [int(node["CPU"]) // found.threads for node in nodes]
    if gpus:
        rooms = [min(room, found.per_gpu * int(node.get("GPU", 0))) for node, room in zip(nodes, rooms, strict=True)]
    assert found.concurrent <= sum(rooms)


@pytest.mark.parametrize(
    ("nodes", "trainings", "concurrent", "threads"),
    [
        ([{"CPU": 8}], 2, 2, 4),
        ([{"CPU": 8}], 1, 2, 4),  # a single one has no more than each of two
        ([{"CPU": 8}, {"CPU": 8}], 2, 2, 8),
        ([{"CPU": 8}, {"CPU": 8}], 3, 3, 4),
        ([{"CPU": 8}] * 4, 2, 2, 8),
        ([{"CPU": 16}, {"CPU": 4}], 2, 2, 8),
        ([{"CPU": 8}, {"CPU": 8}, {"CPU": 2, "GPU": 1}], 2, 2, 8),  # the last has joined a search on CPUs
    ],
)
def test_the_last_trainings_have_at_most_the_threads_of_a_node(
    asked: Search, nodes: list[Resources], trainings: int, concurrent: int, threads: int
) -> None:
    begun = replace(asked, workers=Workers(concurrent=4, threads=1, device="cpu", joined=True))
    expected = replace(begun.workers, concurrent=concurrent, threads=threads)
    assert with_more_threads(begun, nodes, trainings).workers == expected


def test_a_run_records_its_number_of_threads(asked: Search) -> None:
    def order_of_a_new_run(**words: Any) -> Order | None:
        run = RunFolder.create(asked.run.root.parent / str(len(words)), asked.study)
        ahead_of(replace(asked, run=run, workers=Workers(concurrent=4, **words)))
        return run.order()

    assert asked.run.order() is None
    assert order_of_a_new_run(threads=4, device="cpu") == Order(ahead=5, threads=4)
    assert order_of_a_new_run(threads=4, device="cuda", per_gpu=2) == Order(ahead=5), "kept for CPUs alone"
    kept = RunFolder.open(asked.run.root.parent / "2").hold_to_order(Order(ahead=2, threads=1))
    assert kept == Order(ahead=5, threads=4)


def test_trainings_share_gpus_on_request() -> None:
    node: Resources = {"CPU": 16, "GPU": 2}
    expected = Workers(concurrent=4, threads=4, device="cuda", per_gpu=2)
    assert workers_of([node], 0, 2) == expected
    assert str(expected) == "4 at a time, 2 on each GPU, each with 4 threads"
    assert workers_of([{"CPU": 3, "GPU": 2}], 0, 2) == Workers(concurrent=3, threads=1, device="cuda", per_gpu=2)
    assert workers_of([node], 2, 4).per_gpu == 1, "no GPU is shared while another one has nothing to do"
    assert workers_of([node], 3, 4).per_gpu == 2
    assert workers_of([{"CPU": 16}], 0, 2) == Workers(concurrent=16, threads=1, device="cpu"), "no GPU, no sharing"
    for count in (1, 2, 3, 7, 32):
        share = replace(expected, per_gpu=count).gpu_share
        assert count * share <= 1 < (count + 1) * share, "as many as that fit onto one, and no more"


@pytest.mark.parametrize("nodes", [[], [{}], [{"CPU": 0}, {"timing": 1}], [{"CPU": 0, "GPU": 4}, {"CPU": 4}]])
def test_a_demand_that_no_node_can_meet_is_refused(nodes: list[Resources]) -> None:
    with pytest.raises(UserError, match="expected a node that trains"):
        workers_of(nodes, 0)


def test_a_node_names_the_requirements_that_it_lacks(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text("of this run")
    asked: dict[str, Any] = {
        "version": nas.__version__,
        "shared": str(study),
        "text": "of this run",
        "files": [str(study)],
        "on_gpus": False,
    }

    def lacks(**words: Any) -> str:
        problem, note = question_for_nodes()(**words)
        assert note == ""
        return str(problem)

    assert lacks(**asked) == ""
    assert "install the same there" in lacks(**{**asked, "version": "0.0.9"})
    assert "on a disk that all nodes share" in lacks(**{**asked, "shared": "/nowhere/study.yaml"})
    assert "on a disk that all nodes share" in lacks(**{**asked, "text": "of another run under the same name"})
    assert "does not see the data, such as /nowhere/image.png" in lacks(**{**asked, "files": ["/nowhere/image.png"]})


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The answers of a cluster of invented GPUs."""
    folder = tmp_path_factory.mktemp("cluster")
    done = subprocess.run([sys.executable, "-c", CLUSTER, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers


@pytest.mark.slow
def test_the_latency_table_is_that_of_the_timing_node(found: dict[str, Any]) -> None:
    assert found["made"]["networks"] == 20
    assert found["of the node"] == found["made"]
    assert found["of this machine"] is None
    assert found["heard"]
    assert "asks for 99 threads" in found["refused"]


@pytest.mark.slow
def test_a_cluster_of_gpus_gives_its_workers_and_names_missing_gpus_and_data(found: dict[str, Any]) -> None:
    workers = found["workers"]
    assert (workers["concurrent"], workers["threads"], workers["device"], workers["per_gpu"]) == (2, 2, "cuda", 1)
    assert found["ready"] is None
    assert found["drawn there"] is None
    if not torch.cuda.is_available():
        assert "has GPUs for Ray, but PyTorch sees none there" in found["no GPU"]
    assert "does not see the data, such as /nowhere/at/all.png" in found["no data"]


@pytest.mark.slow
def test_trainings_share_invented_gpus_after_a_probe_on_one_of_them() -> None:
    done = subprocess.run([sys.executable, "-c", SHARED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    shared: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    one, _, other, _ = places = shared["places"]
    assert places == [one, one, other, other], "two on each"
    assert one[0] != other[0], "nodes"
    assert [gpus for _, gpus in places] == [[0]] * 4
    assert shared["trainings that wait"] == 1, "a fifth has no room"
    count, words = shared["probed"]
    assert count in (1, 2, 4)
    assert "GB alone" in words


@pytest.mark.slow
def test_a_lost_timing_node_is_replaced_or_reported() -> None:
    done = subprocess.run([sys.executable, "-c", LOST], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lost: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    one, other = lost["nodes"]
    assert one != other
    assert lost["milliseconds"][0] == lost["milliseconds"][1], "the same kind of device, and an invented one"
    assert "the cluster's node that times is lost; another one with `timing` takes its place" in done.stderr
    assert "waiting for the cluster's node that times: none has the resource `timing`; see `ray status`" in done.stderr
    assert lost["lost"].startswith("the cluster's node that times is lost: ")
    assert lost["lost"].endswith("; see `ray status`")


def test_latencies_of_another_kind_of_device_are_refused(invented: Callable[[float], Latency]) -> None:
    timing = ClusterTiming((parse_target("null@cpu:1"),), (48, 64), 3)

    def on(**environment: str) -> Latency:
        return replace(invented(1.0), environment={"cpu": "an old one", "host": "a", **environment})

    timing.alike(on())
    timing.alike(on(host="b", node="1"))
    with pytest.raises(HaltedError, match="cpu an old one before, a new one now") as refused:
        timing.alike(on(cpu="a new one"))
    assert "\n" not in str(refused.value)


def test_requests_to_a_timing_node_lost_for_good_keep_failing() -> None:
    """Requests after the loss get the same error again if no other node came."""
    timing = ClusterTiming((parse_target("null@cpu:1"),), (48, 64), 3)
    with pytest.raises(OSError, match="node that times is lost: no other one took its place; see `ray status`"):
        timing.measure_graph(b"")
    timing.halt()
    with pytest.raises(HaltedError, match="ended together with the search"):
        timing.measure_graph(b"")
