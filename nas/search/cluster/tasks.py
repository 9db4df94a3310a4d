"""Runs the computations between trainings as tasks on the cluster that a search has joined: the machine that searches
may have no GPU, and not the runtime of the target.

Weighing channels for pruning, renewing batch-norm statistics and scoring finished networks run where trainings run,
with the same share of processors and GPU as a training. INT8 is calibrated and scored on the timing node, by the
runtime that is timed. Without a joined cluster, this machine does all of it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from nas.data import Dataset
from nas.host.room import is_shortage
from nas.host.words import counted, one_line
from nas.latency.machine import lane
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError, accept, refusal
from nas.prune.plan import PruningPlan
from nas.prune.recovery import Recover, recover
from nas.prune.tuning import FineTuning
from nas.prune.weighing import Weigh, Weighed, weighed
from nas.quantization.shipping import deployed_on
from nas.runs.certificate import Deployed
from nas.search.cluster import nodes
from nas.search.cluster.configured_ray import ray
from nas.search.cluster.nodes import NodeWatcher
from nas.search.measure.on_cluster import RESOURCE
from nas.search.search import Workers
from nas.search.train.causes import lost_node
from nas.terminal import ProgressLine
from nas.training.evaluation import evaluate
from nas.training.scores import Scores
from pruning.damage import Damage
from pruning.importance import ChannelScores
from pruning.surgery import Cutter
from space.errors import UserError
from space.network import Network

MOST_RETRIES = 2  # of a task whose node is lost

T = TypeVar("T")
Options = dict[str, Any]


def on_node(options: Options, work: Callable[..., T], *arguments: Any) -> T:
    """The result of `work`, run on a node of the cluster with the resources in the `options` of Ray.

    Raises: UserError or OSError raised by `work`; WorkerError when memory was short on the node; OSError when the task
    is lost, or no node is left for it.
    """
    task: Any = ray.remote(**options, max_retries=MOST_RETRIES, max_calls=1)(_answered)
    name = work.__name__.strip("_")
    running = task.remote(work, arguments)
    try:
        _wait(running, options, name)
        answer, refused = ray.get(running)
    except ray.exceptions.RayError as error:
        lost, words = lost_node(str(error)), one_line(error, 200, end=True)
        raise OSError(f"{name} on a node of the cluster failed: {f'{lost} is lost' if lost else words}") from None
    accept(refused)
    found: T = answer
    return found


def _wait(running: Any, options: Options, name: str) -> None:
    """Wait for a task, as long as there is a node that is large enough for it.

    Raises: OSError when there has been none for long.
    """
    needed = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
    watcher, says_missing = NodeWatcher(needed), False
    while not ray.wait([running], timeout=nodes.LOOK_SECONDS)[0]:
        missing = watcher.missing_seconds()
        if missing and not says_missing:
            print(f"waiting for a node that is large enough for {name}; see `ray status`", file=sys.stderr, flush=True)
        says_missing = missing > 0
        if missing >= nodes.LOST_SECONDS:
            ray.cancel(running, force=True)
            raise OSError(f"the cluster has no node that is large enough for {name} any more; see `ray status`")


def options_of(workers: Workers) -> Options:
    """Ray's options for a task with the resources of a training."""
    return {"num_cpus": workers.threads, "num_gpus": workers.gpu_share}


def weigh_on(workers: Workers) -> Weigh:
    """`nas.prune.weighing.weighed`, run where trainings run."""

    def weigh(
        network: Network,
        plan: PruningPlan,
        tuning: FineTuning | None,
        log: Callable[[str], None],
        progress: ProgressLine,
    ) -> Weighed:
        with progress.over("channels weighed on a node", 0):
            scores, damage, lines = on_node(options_of(workers), _weighed, network, plan, tuning, workers)
        for line in lines:
            log(line)
        return Weighed(cutter=Cutter(network.architecture, network.num_classes), scores=scores, damage=damage)

    return weigh


def recover_on(workers: Workers) -> Recover:
    """`nas.prune.recovery.recover`, run where trainings run."""

    def recover_there(
        network: Network,
        teacher: Network,
        epochs: int,
        tuning: FineTuning,
        log: Callable[[str], None],
        progress: ProgressLine,
    ) -> None:
        with progress.over(f"{counted(epochs, 'epoch')} on a node", 0):
            state, lines = on_node(options_of(workers), _recovered, network, teacher, epochs, tuning, workers)
        for line in lines:
            log(line)
        network.load_state_dict(state)

    return recover_there


def score_on(workers: Workers) -> Callable[[nn.Module, Dataset], Scores]:
    """`nas.training.evaluation.evaluate` on the validation images, run where trainings run."""
    return lambda network, dataset: on_node(options_of(workers), _scored, network, dataset, workers)


def deployed_on_timing_node(target: Target, network: Network, dataset: Dataset) -> Deployed | None:
    """`nas.quantization.shipping.deployed_on`, run on the timing node."""
    return on_node({"num_cpus": 0, "resources": {RESOURCE: 1}}, deployed_on, target, network, dataset)


def _answered(work: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T | None, dict[str, Any]]:
    """The result of `work`, or its error as text: Ray would wrap the error in a traceback."""
    try:
        return work(*arguments), {}
    except (UserError, OSError, WorkerError) as error:
        return None, refusal(error)
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        return None, refusal(error)


def _weighed(
    network: Network, plan: PruningPlan, tuning: FineTuning | None, workers: Workers
) -> tuple[ChannelScores, Damage, list[str]]:
    lines: list[str] = []
    there = None if tuning is None else _there(tuning, workers)
    found = weighed(network.to(workers.device), plan, there, lines.append, ProgressLine(silent=True))
    return found.scores, found.damage, lines


def _recovered(
    network: Network, teacher: Network, epochs: int, tuning: FineTuning, workers: Workers
) -> tuple[dict[str, Tensor], list[str]]:
    lines: list[str] = []
    device = workers.device
    recover(
        network.to(device), teacher.to(device), epochs, _there(tuning, workers), lines.append, ProgressLine(silent=True)
    )
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, lines


def _there(tuning: FineTuning, workers: Workers) -> FineTuning:
    """The fine-tuning with the resources of a task: the node may have more processors."""
    return replace(tuning, device=workers.device, threads=workers.threads)


def _scored(network: nn.Module, dataset: Dataset, workers: Workers) -> Scores:
    device = workers.device
    return evaluate(network, dataset, device=device, threads=workers.threads, guard=lane.shared_on(device))
