"""How many trainings of a search run at a time, and which processors and GPUs each of them uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from nas.host.cores import usable_cores
from nas.latency import parse_target
from nas.latency.machine.gpu import training_device
from nas.runs.folder import RunFolder
from nas.search.cluster.nodes import Resources
from nas.search.cluster.workers import most_at_once, probe_on_cluster, workers_of
from nas.search.measure.on_cluster import RESOURCE
from nas.search.search import Search, Workers
from nas.search.train.sharing import probe
from nas.study import AUTO, Study


def resources_here() -> Resources:
    """The processors of this machine that trainings may use, and its GPUs."""
    import torch

    return {"CPU": usable_cores(), "GPU": torch.cuda.device_count() if training_device() == "cuda" else 0}


def workers_for(run: RunFolder, study: Study, nodes: Sequence[Resources], *, joined: bool) -> Workers:
    """The workers that train the candidates of a study; a resumed run keeps the threads that it began with."""
    plan, target, order = study.search, parse_target(study.target), run.order()
    per_gpu = plan.trials_per_gpu if isinstance(plan.trials_per_gpu, int) else 1
    timing_node = any(RESOURCE in node for node in nodes)
    on_gpu_here = target.on_cuda and not target.host  # another GPU, if there is one, trains meanwhile
    others = on_gpu_here and sum(node.get("GPU", 0) for node in nodes) > 1
    if others and not joined:
        nodes = [{**node, "CPU": max(1, node["CPU"] - 1)} for node in nodes]
    threads = 0 if order is None else order.threads
    most = most_at_once(study) if order is None or threads else order.ahead + 1
    return replace(
        workers_of(nodes, plan.concurrent, per_gpu, most=most, threads=threads),
        joined=joined,
        timed_beside=bool(target.host) or timing_node or others,
        leaves_core_of=target.device if others else "",
        timing_node=timing_node,
    )


def with_shared_gpus(search: Search, nodes: Sequence[Resources]) -> Search:
    """The search with the number of trainings per GPU that a probe recommends, where the study asks for a probe. The
    number is written to the run's folder, so that a resumed run keeps it.
    """
    study, workers = search.study, search.workers
    if study.search.trials_per_gpu != AUTO or workers.device == "cpu":
        return search
    search.console.step("probe   how many trainings may share a GPU")
    probed = probe_on_cluster if workers.joined else probe
    found = probed(study, search.num_classes, workers.device)
    search.console.step(f"        {found.count}: {found.words}")
    study = replace(study, search=replace(study.search, trials_per_gpu=found.count))
    search.run.write_study(study)
    return replace(search, study=study, workers=workers_for(search.run, study, nodes, joined=workers.joined))


def with_more_threads(search: Search, nodes: Sequence[Resources], count: int) -> Search:
    """The search for `count` trainings that no later proposal depends on: on CPUs they all run at a time, as far as the
    study's `concurrent` allows, and share the cores. Each has threads of one node only.
    """
    workers, concurrent = search.workers, search.study.search.concurrent
    if workers.device != "cpu":
        return search
    count = max(2, count)  # a single training with two threads would change the results of runs on two cores
    nodes = [{**node, "GPU": 0} for node in nodes]  # of a node that has joined since
    found = workers_of(nodes, min(concurrent or count, count))
    if found.threads == workers.threads and found.concurrent <= workers.concurrent:
        return search
    return replace(search, workers=replace(workers, concurrent=found.concurrent, threads=found.threads))
