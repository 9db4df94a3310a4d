"""Times the candidates of a search on a cluster, on the node that carries the Ray resource `timing`.

    ray start --address HEAD --num-cpus 0 --resources '{"timing": 1}'        # on a quiet machine of the target's type

One unit of the resource is one measuring process, so that no two timings share the device. A node without processors
for Ray (`--num-cpus 0`) gets no trainings; on a node with processors, the lane (`nas.latency.machine.lane`) pauses
training steps during timings. The latency table is that of the node (`nas measure --calibrate` there). Without the
resource, a cluster's candidates are timed on the machine that runs the search.

A lost node is replaced by another one that carries the resource, if there is one or one joins soon, and the interrupted
measurement is repeated there. The new node must have a device of the same kind: its milliseconds are relative to an
anchor measured there.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from nas.errors import HaltedError
from nas.host.words import one_line
from nas.latency import Meter
from nas.latency.estimates.table import LatencyTable
from nas.latency.protocol import PATIENCE_SECONDS, WITHIN
from nas.latency.record import Latency, Statistic
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError, accept, refusal
from nas.search.cluster.configured_ray import ray
from nas.search.measure.comparable import incomparable, other_versions
from nas.search.measure.timing import CertifierOf, TimingOf, local_timing
from space.architecture import Architecture
from space.errors import UserError

RESOURCE = "timing"
WAIT_SECONDS = 20.0  # time to wait for the node before a line says so
LOST_SECONDS = 120.0  # time to wait for another node after one is lost
MOST_LOST = 3  # nodes lost over one question, which may be the cause

NodeAnswer = tuple[object, dict[str, Any]]
"""An answer, and a reply (`nas.latency.worker.replies`) that says why there is none."""


class ClusterTiming:
    """Times on the cluster's timing node, with the interface of a `local_timing`. Needs a connected Ray.

    The node reads weights under the same path as this machine. Records name the node (`environment["node"]`). The
    methods that measure raise OSError when the node is lost and no other one takes its place, and HaltedError when the
    new node is of another kind.

    Raises (on entering): TargetError when the target cannot be timed there, with what to install or change; OSError
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
        self._actor: Any = None
        self._halted = False
        self._kinds: dict[str, Mapping[str, str]] = {}  # environment of the first latency, by target

    def __enter__(self) -> ClusterTiming:
        try:
            try:
                self._begin()
            except ray.exceptions.RayActorError as error:
                self._replace(error)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if (actor := self._actor) is not None:  # else the node was lost, and no other one came
            with contextlib.suppress(ray.exceptions.RayActorError):  # lost, or halted
                ray.get(actor.stop.remote())
        self._end()

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = WITHIN) -> Latency:
        """As `Meter.measure`."""
        latency: Latency = self._ask("measure", architecture, weights, within)
        return self.alike(latency)

    def measure_graph(self, graph: bytes, *, within: float = WITHIN) -> Latency:
        """As `Meter.measure_graph`."""
        latency: Latency = self._ask("measure_graph", graph, within)
        return self.alike(latency)

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = WITHIN) -> list[Latency]:
        """As `Meter.measure_together`."""
        latencies: list[Latency] = self._ask("measure_together", architectures, within)
        return [self.alike(each) for each in latencies]

    @property
    def environment(self) -> Mapping[str, str]:
        """See `nas.search.measure.timing.Timing.environment`."""
        found: dict[str, str] = self._ask("environment")
        return found

    def kept_table(self) -> LatencyTable | None:
        """The latency table that the node keeps for its device; None when it has none."""
        table: LatencyTable | None = self._ask("kept_table")
        return table

    def targets(self) -> tuple[Target, ...]:
        """The targets that the node times."""
        found: tuple[Target, ...] = self._ask("targets")
        return found

    def left_out(self) -> tuple[str, ...]:
        """For each target that the node does not time, the reason."""
        reasons: tuple[str, ...] = self._ask("left_out")
        return reasons

    def halt(self) -> None:
        """See `nas.search.measure.timing.Halting`."""
        self._halted = True
        if (actor := self._actor) is not None:
            with contextlib.suppress(ray.exceptions.RayError):  # the reason for halting is reported, not this error
                ray.kill(actor)

    def _begin(self, lost: str = "") -> None:
        """Start timing on a node. `lost` says how the previous node was lost; then the wait for another one is limited.

        Raises: OSError when no other node came; HaltedError after `halt`.
        """
        node: Any = ray.remote(num_cpus=0, resources={RESOURCE: 1})(_TimingNode)
        self._actor = node.remote()
        self._require_going()  # a `halt` before this line did not see the actor
        ready, begin = self._actor.__ray_ready__.remote(), time.monotonic()
        if not ray.wait([ready], timeout=WAIT_SECONDS)[0]:
            reason = f"all its `{RESOURCE}` is in use" if _is_there() else f"none has the resource `{RESOURCE}`"
            _log(f"waiting for the cluster's node that times: {reason}; see `ray status`")
            while lost and not ray.wait([ready], timeout=1)[0]:
                self._require_going()
                if not _is_there() and time.monotonic() > begin + LOST_SECONDS:
                    self._end()  # the actor would never start, and asking it to stop would block for ever
                    raise OSError(_lost(lost))
        self._answer_to("start", *self._arguments)

    def _replace(self, error: Exception) -> None:
        """Start timing on another node in place of one that was lost.

        Raises: OSError when no other node comes; HaltedError after `halt`.
        """
        self._require_going()
        words = one_line(error, 200)
        for _ in range(MOST_LOST):
            self._end()
            _log(
                f"the cluster's node that times is lost; another one with `{RESOURCE}` takes its place, if there is one"
            )
            try:
                self._begin(words)
            except ray.exceptions.RayActorError as again:
                words = one_line(again, 200)
            else:
                return
        self._end()
        raise OSError(_lost(words))

    def _require_going(self) -> None:
        """Raises: HaltedError after `halt`; an actor that was started meanwhile is ended."""
        if self._halted:
            self._end()
            raise HaltedError("measuring was ended together with the search") from None

    def _end(self) -> None:
        actor, self._actor = self._actor, None
        if actor is not None:
            ray.kill(actor)

    def _ask(self, question: str, *arguments: Any) -> Any:
        for _ in range(MOST_LOST):
            try:
                return self._answer_to(question, *arguments)
            except ray.exceptions.RayActorError as error:
                lost = error
                self._replace(error)
        raise OSError(_lost(one_line(lost, 200)))

    def _answer_to(self, question: str, *arguments: Any) -> Any:
        """Raises: RayActorError when the node is lost; OSError for other errors of Ray; errors raised on the node."""
        self._require_going()
        if self._actor is None:  # the node was lost before, and no other one came
            raise OSError(_lost("no other one took its place"))
        try:
            answer, refused = ray.get(getattr(self._actor, question).remote(*arguments))
        except ray.exceptions.RayActorError:
            raise
        except ray.exceptions.RayError as error:
            raise OSError(_lost(one_line(error, 200))) from None
        accept(refused)
        return answer

    def alike(self, latency: Latency) -> Latency:
        """A latency, after checking that its node is of the same kind as that of the first latency.

        Raises: HaltedError where it is not: the latencies would not compare.
        """
        now = latency.environment
        known = self._kinds.setdefault(latency.target, now)
        if changed := incomparable(known, now) or other_versions(known, now):
            raise HaltedError(
                f"the cluster's node that times now is of another kind than the one that was lost ({changed}): their "
                f"latencies do not compare; give `{RESOURCE}` to a node like the lost one, then go on with --resume"
            )
        return latency


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _lost(words: str) -> str:
    return f"the cluster's node that times is lost: {words}; see `ray status`"


def _is_there() -> bool:
    """Whether a node of the cluster carries the resource, in use or not."""
    return RESOURCE in ray.cluster_resources()  # type: ignore[no-untyped-call]


def timing_of_cluster() -> TimingOf:
    """The timing for the connected cluster: on its timing node if it has one, else on this machine."""
    return ClusterTiming if _is_there() else local_timing


def certifier_of_cluster() -> CertifierOf:
    """The certifier for the connected cluster: on its timing node if it has one, else on this machine."""
    return _certifier if _is_there() else Meter


def _certifier(
    target: Target, size: tuple[int, int], num_classes: int, *, patience_seconds: float = PATIENCE_SECONDS
) -> ClusterTiming:
    return ClusterTiming((target,), size, num_classes, patience_seconds=patience_seconds)


class _TimingNode:
    """The actor that times on its node. Errors travel as text: Ray would wrap them in a traceback."""

    def start(
        self,
        targets: Sequence[Target],
        size: tuple[int, int],
        num_classes: int,
        patience_seconds: float,
        statistic: Statistic,
    ) -> NodeAnswer:
        def enter() -> None:
            timing = local_timing(targets, size, num_classes, patience_seconds=patience_seconds, statistic=statistic)
            self._timing: Any = self._entered.enter_context(timing)

        self._entered = contextlib.ExitStack()
        return self._answer(enter)

    def measure(self, architecture: Architecture, weights: Path | None, within: float) -> NodeAnswer:
        return self._answer(lambda: self._placed(self._timing.measure(architecture, weights=weights, within=within)))

    def measure_graph(self, graph: bytes, within: float) -> NodeAnswer:
        return self._answer(lambda: self._placed(self._timing.measure_graph(graph, within=within)))

    def measure_together(self, architectures: Sequence[Architecture], within: float) -> NodeAnswer:
        return self._answer(
            lambda: [self._placed(each) for each in self._timing.measure_together(architectures, within=within)]
        )

    def environment(self) -> NodeAnswer:
        return self._answer(lambda: dict(self._timing.environment))

    def kept_table(self) -> NodeAnswer:
        return self._answer(self._timing.kept_table)

    def targets(self) -> NodeAnswer:
        return self._answer(self._timing.targets)

    def left_out(self) -> NodeAnswer:
        return self._answer(self._timing.left_out)

    def stop(self) -> None:
        self._entered.close()

    def _placed(self, latency: Latency) -> Latency:
        node = {"node": ray.get_runtime_context().get_node_id()}
        return replace(latency, environment={**latency.environment, **node})

    def _answer(self, work: Callable[[], object]) -> NodeAnswer:
        try:
            return work(), {}
        except (UserError, OSError, WorkerError) as error:
            return None, refusal(error)
