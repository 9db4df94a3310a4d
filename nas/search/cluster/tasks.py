"""What a search computes between trainings, as tasks on the cluster that it has joined: the machine that searches may
have no GPU, and not the runtime of the target.

Pruning weighs channels and renews statistics, and finished networks are scored, where trainings run: with as many
processors and as much of a GPU as one of them has. INT8 is calibrated and scored on the node that times, by the runtime
that is timed. Without a cluster all of it is done here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor, nn

from nas.data import Dataset
from nas.host.room import is_shortage
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
from nas.search.cluster.nodes import Room
from nas.search.measure.on_cluster import RESOURCE
from nas.search.search import Workers
from nas.search.train.causes import lost_node
from nas.terminal import Progress
from nas.training.evaluation import evaluate
from nas.training.scores import Scores
from pruning.damage import Damage
from pruning.importance import ChannelScores
from pruning.surgery import Cutter
from space.errors import UserError
from space.network import Network

MOST_RETRIES = 2  # when a node is lost

T = TypeVar("T")
Options = dict[str, Any]


def on_node(options: Options, work: Callable[..., T], *arguments: Any) -> T:
    """What `work` gives on a node of the cluster that has what the `options` of Ray ask for.

    Raises: what `work` raises, where that is a UserError or an OSError; WorkerError when memory was short there;
    OSError when the task is lost, or no node is left for it.
    """
    task: Any = ray.remote(**options, max_retries=MOST_RETRIES, max_calls=1)(_answered)
    name = work.__name__.strip("_")
    asked = task.remote(work, arguments)
    try:
        _wait(asked, options, name)
        answer, refused = ray.get(asked)
    except ray.exceptions.RayError as error:
        lost, words = lost_node(str(error)), " ".join(str(error).split())[-200:]
        raise OSError(f"{name} on a node of the cluster broke: {f'{lost} is lost' if lost else words}") from None
    accept(refused)
    found: T = answer
    return found


def _wait(asked: Any, options: Options, name: str) -> None:
    """Wait for a task, as long as a node is large enough for it.

    Raises: OSError when none has been for long.
    """
    needed = {"CPU": options["num_cpus"], "GPU": options.get("num_gpus", 0), **options.get("resources", {})}
    room, said = Room(needed), False
    while not ray.wait([asked], timeout=nodes.LOOK_SECONDS)[0]:
        missing = room.missing_seconds()
        if missing and not said:
            print(f"waiting for a node that is large enough for {name}; see `ray status`", file=sys.stderr, flush=True)
        said = missing > 0
        if missing >= nodes.LOST_SECONDS:
            ray.cancel(asked, force=True)
            raise OSError(f"the cluster has no node that is large enough for {name} any more; look at `ray status`")


def options_of(workers: Workers) -> Options:
    """What a training has."""
    return {"num_cpus": workers.threads, "num_gpus": workers.gpu_share}


def weigh_on(workers: Workers) -> Weigh:
    """`nas.prune.weighing.weighed`, where trainings run."""

    def weigh(
        network: Network,
        plan: PruningPlan,
        tuning: FineTuning | None,
        said: Callable[[str], None],
        progress: Progress,
    ) -> Weighed:
        with progress.over("channels weighed on a node", 0):
            scores, damage, words = on_node(options_of(workers), _weighed, network, plan, tuning, workers)
        for line in words:
            said(line)
        return Weighed(cutter=Cutter(network.architecture, network.num_classes), scores=scores, damage=damage)

    return weigh


def recover_on(workers: Workers) -> Recover:
    """`nas.prune.recovery.recover`, where trainings run."""

    def recovers(
        network: Network,
        teacher: Network,
        epochs: int,
        tuning: FineTuning,
        said: Callable[[str], None],
        progress: Progress,
    ) -> None:
        with progress.over(f"{epochs} epochs on a node", 0):
            state, words = on_node(options_of(workers), _recovered, network, teacher, epochs, tuning, workers)
        for line in words:
            said(line)
        network.load_state_dict(state)

    return recovers


def score_on(workers: Workers) -> Callable[[nn.Module, Dataset], Scores]:
    """`nas.training.evaluation.evaluate` of the validation images, where trainings run."""
    return lambda network, dataset: on_node(options_of(workers), _scored, network, dataset, workers)


def deployed_on_timing_node(target: Target, network: Network, dataset: Dataset) -> Deployed | None:
    """`nas.quantization.shipping.deployed_on`, on the node that times."""
    return on_node({"num_cpus": 0, "resources": {RESOURCE: 1}}, deployed_on, target, network, dataset)


def _answered(work: Callable[..., T], arguments: tuple[Any, ...]) -> tuple[T | None, dict[str, Any]]:
    """What went wrong travels as text: Ray would wrap it in a traceback."""
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
    words: list[str] = []
    there = None if tuning is None else _there(tuning, workers)
    found = weighed(network.to(workers.device), plan, there, words.append, Progress(silent=True))
    return found.scores, found.damage, words


def _recovered(
    network: Network, teacher: Network, epochs: int, tuning: FineTuning, workers: Workers
) -> tuple[dict[str, Tensor], list[str]]:
    words: list[str] = []
    device = workers.device
    recover(
        network.to(device), teacher.to(device), epochs, _there(tuning, workers), words.append, Progress(silent=True)
    )
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}, words


def _there(tuning: FineTuning, workers: Workers) -> FineTuning:
    """With what a task has: the node may have more processors."""
    return replace(tuning, device=workers.device, threads=workers.threads)


def _scored(network: nn.Module, dataset: Dataset, workers: Workers) -> Scores:
    device = workers.device
    return evaluate(network, dataset, device=device, threads=workers.threads, guard=lane.shared_on(device))
