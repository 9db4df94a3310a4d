"""Derives the workers of a search from Ray's nodes, and checks that each node has this program, the run's folder, the
data, and PyTorch for its GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nas
from nas.data import Dataset
from nas.errors import HaltedError
from nas.host.words import one_line
from nas.search.cluster.configured_ray import NodeAffinitySchedulingStrategy, ray
from nas.search.cluster.nodes import Resources, alive_nodes
from nas.search.measure.on_cluster import RESOURCE
from nas.search.search import Workers
from nas.search.train.sharing import Sharing, probe
from nas.study import Study
from space.errors import UserError

ANSWER_SECONDS = 120.0  # time for a node to answer: it starts a process that imports Ray
AT_ONCE = 1 / 4  # largest share of a plan's whole trainings that train at a time
BUSY = 3 / 4  # share of the processors below which fewer, larger trainings are preferred


def most_at_once(study: Study) -> int:
    """The most candidates of a study to train at a time on CPUs, where the study leaves the number open.

    Trainings that run at the same time cannot learn from each other's results; the processors that this leaves make
    each of them faster.
    """
    plan, budgets = study.search, len(study.asked)
    return max(2, int(AT_ONCE * (budgets * len(plan.seeds) + plan.random_trials + plan.guided_trials)))


def workers_of(
    nodes: Sequence[Resources], wanted: int, per_gpu: int = 1, *, most: int = 0, threads: int = 0
) -> Workers:
    """The workers for these nodes.

    They use GPUs if any node has one, with at most `per_gpu` trainings on each and no more than needed. `wanted` is the
    number of trainings at a time; 0 means as many as fit onto the GPUs, or as there are processors. Each training gets
    as many processors as every one of them can have.

    On CPUs, `most` limits that number where `wanted` is 0; fewer train where `most` of them would leave more than a
    quarter of the processors idle. `threads`: threads of each training on CPUs, where they are known already.

    Raises: UserError when no node can train.
    """
    sizes = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]
    on_gpus = any(gpus for _, gpus in sizes)

    def room(threads: int, sharing: int = per_gpu) -> int:
        """Number of trainings that can run at a time with this many threads each."""
        return sum(min(cpus // threads, sharing * gpus if on_gpus else cpus) for cpus, gpus in sizes)

    if not room(1):
        what = "a processor beside its GPU" if on_gpus else "a processor"
        raise UserError(
            f"expected a node that trains, but none of the cluster's nodes ({len(nodes)}) offers {what}; start one "
            "with `ray start --address HOST:PORT --num-cpus N`"
        )
    largest = max(cpus for cpus, _ in sizes)

    def threads_of(concurrent: int) -> int:
        return max(count for count in range(1, largest + 1) if room(count) >= concurrent)

    concurrent = min(wanted or room(1), room(1))
    if most and not wanted and not on_gpus:
        enough, most = BUSY * sum(cpus for cpus, _ in sizes), min(most, concurrent)
        counts = range(most, min(2, most) - 1, -1)
        concurrent = max(counts, key=lambda count: min(enough, count * threads_of(count)))
    known = 0 if on_gpus else min(threads, largest)
    threads = known or threads_of(concurrent)
    concurrent = min(concurrent, room(threads))
    # On CPUs this is 1: there, the room does not depend on it.
    sharing = next(count for count in range(1, per_gpu + 1) if room(threads, count) >= concurrent)
    return Workers(concurrent=concurrent, threads=threads, device="cuda" if on_gpus else "cpu", per_gpu=sharing)


def resources_of_nodes() -> list[Resources]:
    """The resources of each node of the connected cluster."""
    return [node["Resources"] for node in alive_nodes()]


def require_nodes(shared: Path, dataset: Dataset, root: str | None, device: str, log: Callable[[str], None]) -> None:
    """Ask every node of the connected cluster that trains or times whether it has all it needs.

    `shared` is a file in the run's folder, which all nodes must see. `root` is the folder of the data, or None where
    each node generates its own. `device` is that of the trainings. `log` prints what slows a node down.

    Raises: UserError with the problem of the first node that has one.
    """
    files = [] if root is None else [str(split.images[-1]) for split in (dataset.train, dataset.validation)]
    asked = {}
    for node in alive_nodes():
        if node["Resources"].get("CPU", 0) >= 1 or RESOURCE in node["Resources"]:
            pinned: Any = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            # One call per process: it sees GPUs that it was not given, and must not be reused for a training.
            options: Any = {"num_cpus": 0, "max_retries": 0, "max_calls": 1, "scheduling_strategy": pinned}
            question = ray.remote(**options)(question_for_nodes())
            path, text = shared.resolve(), shared.read_text("utf-8")
            on_gpus = device == "cuda" and node["Resources"].get("GPU", 0) >= 1
            asked[question.remote(nas.__version__, str(path), text, files, on_gpus)] = node["NodeManagerAddress"]
    ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    for reference in ready:
        try:
            problem, note = ray.get(reference)
        except ray.exceptions.RayError as error:
            problem, note = f"cannot run a task: {one_line(error, 200, end=True)}", ""
        if problem:
            raise UserError(f"the cluster's node {asked[reference]} {problem}")
        if note:
            log(f"note    the cluster's node {asked[reference]} {note}")
    for reference in late:
        raise UserError(
            f"the cluster's node {asked[reference]} gave no answer within {ANSWER_SECONDS:.0f} s; see `ray status`"
        )


def probe_on_cluster(study: Study, num_classes: int, device: str) -> Sharing:
    """`nas.search.train.sharing.probe` on one of the cluster's GPUs, which is otherwise idle meanwhile.

    Raises: HaltedError when the probe is lost.
    """
    options: Any = {"num_cpus": 1, "num_gpus": 1, "max_retries": 0, "max_calls": 1}
    try:
        found: Sharing = ray.get(ray.remote(**options)(probe).remote(study, num_classes, device))
    except ray.exceptions.RayError as error:
        raise HaltedError(
            f"the probe of how many trainings may share a GPU failed: {one_line(error, 200, end=True)}; give the "
            "study a number for search.trials_per_gpu"
        ) from None
    return found


def question_for_nodes() -> Any:
    """A function to run on a node, which returns the node's problem and what slows it down, each in words or empty. It
    is a local function so that Ray sends its code: this program may not be installed there.
    """

    def problem_and_note(version: str, shared: str, text: str, files: list[str], on_gpus: bool) -> tuple[str, str]:
        try:
            import nas
        except ImportError:
            return f"lacks this program; install framebudget {version} there", ""
        if nas.__version__ != version:
            return f"has framebudget {nas.__version__}, this is {version}; install the same there", ""
        if not Path(shared).is_file() or Path(shared).read_text("utf-8") != text:
            return f"does not see the run's {shared}; give --out a folder on a disk that all nodes share", ""
        missing = [file for file in files if not Path(file).is_file()]
        if missing:
            return f"does not see the data, such as {missing[0]}; put them there under the same path", ""
        if not on_gpus:
            return "", ""
        from nas.data.loader import dali_works
        from nas.latency.machine.gpu import VISIBLE, training_device
        from space.errors import UserError

        os.environ.pop(VISIBLE, None)  # Ray hides the GPUs from a task that requests none
        try:
            if training_device() != "cuda":
                return "has GPUs for Ray, but PyTorch sees none there; run `nas doctor` there", ""
        except UserError as error:
            return f"cannot train on its GPUs: {error}", ""
        slow = "reads images with Pillow and PyTorch, since DALI does not work on its GPUs; run `nas doctor` there"
        return "", "" if dali_works("cuda") else slow

    return problem_and_note
