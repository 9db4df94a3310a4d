"""Where a search on a cluster times its candidates: on the node that carries the Ray resource `timing`.

    ray start --address HEAD --num-cpus 0 --resources '{"timing": 1}'        # on a quiet machine of the target's type

One unit of it is one measuring process, so that no two timings share the device; a node without processors of its own
(`--num-cpus 0`) gets no training, and on one with processors the lane keeps training steps off while something is
timed (`nas.latency.machine.lane`). A latency table is the one that the node keeps (`nas measure --calibrate` there).
A cluster without the resource times on the machine that searches.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from nas.latency import Meter
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.record import Latency, Statistic
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError, accept, refusal
from nas.search.configured_ray import ray
from nas.search.timing import CertifierOf, TimingOf, local_timing
from space.architecture import Architecture
from space.errors import UserError

RESOURCE = "timing"
WAIT_SECONDS = 20.0  # for the node, before it is said

Answer = tuple[object, dict[str, Any]]  # and a reply (`nas.latency.worker.replies`) that says why there is none


class ClusterTiming:
    """Times on the cluster's timing node: the same questions as to a `local_timing`, the same answers. Needs a
    connected Ray.

    Weights are read by the node under the path that they have here. The records say which node it was
    (`environment["node"]`).

    Raises (on entering): TargetError when the target cannot be timed there, saying what to install or change; OSError
    when the node is lost.
    """

    def __init__(
        self,
        targets: Sequence[Target],
        size: tuple[int, int],
        num_classes: int,
        *,
        patience_seconds: float = PATIENCE_SECONDS,
        statistic: Statistic = "p50",
    ) -> None:
        self._arguments = (tuple(targets), size, num_classes, patience_seconds, statistic)

    def __enter__(self) -> ClusterTiming:
        node: Any = ray.remote(num_cpus=0, resources={RESOURCE: 1})(_TimingNode)
        self._actor: Any = node.remote()
        try:
            if not ray.wait([self._actor.__ray_ready__.remote()], timeout=WAIT_SECONDS)[0]:
                print(
                    f"waiting for the cluster's node that times: all its `{RESOURCE}` is in use, see `ray status`",
                    file=sys.stderr,
                    flush=True,
                )
            self._ask("start", *self._arguments)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.get(self._actor.stop.remote())
        self._end()

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """As `Meter.measure`."""
        latency: Latency = self._ask("measure", architecture, weights, within)
        return latency

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        """As `Meter.measure_graph`."""
        latency: Latency = self._ask("measure_graph", graph, within)
        return latency

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """As `Meter.measure_together`."""
        latencies: list[Latency] = self._ask("measure_together", architectures, within)
        return latencies

    def kept_table(self) -> LatencyTable | None:
        """The latency table of the device that the node keeps; None when it has none."""
        table: LatencyTable | None = self._ask("kept_table")
        return table

    def left_out(self) -> tuple[str, ...]:
        """Why targets are not timed there."""
        reasons: tuple[str, ...] = self._ask("left_out")
        return reasons

    def _end(self) -> None:
        actor, self._actor = self._actor, None
        ray.kill(actor)

    def _ask(self, question: str, *arguments: Any) -> Any:
        try:
            answer, refused = ray.get(getattr(self._actor, question).remote(*arguments))
        except ray.exceptions.RayError as error:
            words = " ".join(str(error).split())[:200]
            raise OSError(f"the cluster's node that times is lost: {words}; look at `ray status`") from None
        accept(refused)
        return answer


def timing_of_cluster() -> TimingOf:
    """What times on the connected cluster: its timing node if it has one, else this machine."""
    return ClusterTiming if RESOURCE in ray.cluster_resources() else local_timing  # type: ignore[no-untyped-call]


def certifier_of_cluster() -> CertifierOf:
    """What certifies on the connected cluster: on its timing node if it has one, else on this machine."""
    if RESOURCE not in ray.cluster_resources():  # type: ignore[no-untyped-call]
        return Meter
    return _certifier


def _certifier(
    target: Target, size: tuple[int, int], num_classes: int, *, patience_seconds: float = PATIENCE_SECONDS
) -> ClusterTiming:
    return ClusterTiming((target,), size, num_classes, patience_seconds=patience_seconds)


class _TimingNode:
    """What times, on its node. What went wrong travels as text: Ray would wrap it in a traceback."""

    def start(
        self,
        targets: Sequence[Target],
        size: tuple[int, int],
        num_classes: int,
        patience_seconds: float,
        statistic: Statistic,
    ) -> Answer:
        def enter() -> None:
            timing = local_timing(targets, size, num_classes, patience_seconds=patience_seconds, statistic=statistic)
            self._timing: Any = self._entered.enter_context(timing)

        self._entered = contextlib.ExitStack()
        return self._answer(enter)

    def measure(self, architecture: Architecture, weights: Path | None, within: float) -> Answer:
        return self._answer(lambda: self._placed(self._timing.measure(architecture, weights=weights, within=within)))

    def measure_graph(self, graph: bytes, within: float) -> Answer:
        return self._answer(lambda: self._placed(self._timing.measure_graph(graph, within=within)))

    def measure_together(self, architectures: Sequence[Architecture], within: float) -> Answer:
        return self._answer(
            lambda: [self._placed(each) for each in self._timing.measure_together(architectures, within=within)]
        )

    def kept_table(self) -> Answer:
        return self._answer(self._timing.kept_table)

    def left_out(self) -> Answer:
        return self._answer(self._timing.left_out)

    def stop(self) -> None:
        self._entered.close()

    def _placed(self, latency: Latency) -> Latency:
        node = {"node": ray.get_runtime_context().get_node_id()}
        return replace(latency, environment={**latency.environment, **node})

    def _answer(self, work: Callable[[], object]) -> Answer:
        try:
            return work(), {}
        except (UserError, OSError, WorkerError) as error:
            return None, refusal(error)
