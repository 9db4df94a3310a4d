"""Networks timed in rounds: refusals, and the verdict on all networks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import space
from nas.errors import TargetError, UnmeasuredError
from nas.latency.budget import Budget
from nas.latency.record import Latency
from nas.latency.rounds import in_rounds, judged, why_none
from nas.latency.target import Target
from nas.latency.worker.replies import WorkerError
from nas.terminal import ProgressLine
from space.architecture import Architecture

QUIET = Latency(
    p50_milliseconds=2.0, p90_milliseconds=3.0, p99_milliseconds=4.0, ci_low_milliseconds=1.9,
    ci_high_milliseconds=2.1, samples=40, ratio=0.5, ratio_low=0.4, ratio_high=0.6, reference_milliseconds=4.0,
    raw_p50_milliseconds=2.2, target="torch@cpu:1", height=64, width=96, scope="network", blocks=((2.0, 4.0),),
)  # fmt: skip


class Refusing:
    """A target that gives other labels for ERFNet, breaks at every graph, and is anchored anew after each round."""

    def __init__(self, last: float = math.inf) -> None:
        self.rounds, self.last = 0, last  # ndnet29-fcn32 is refused after the last round

    def measure(self, architecture: Architecture, *, weights: Path | None = None, within: float = 0.03) -> Latency:
        return self.measure_together([architecture], within=within)[0]

    def measure_together(self, architectures: Sequence[Architecture], *, within: float = 0.03) -> list[Latency]:
        if space.load("erfnet") in architectures:
            raise TargetError("it gives other labels")
        if len(architectures) > 1:
            self.rounds += 1
        if self.rounds > self.last and space.load("ndnet29-fcn32") in architectures:
            raise TargetError("it is tired")
        by = 2.0 + self.rounds
        return [replace(QUIET, p50_milliseconds=0.5 * by, reference_milliseconds=by) for _ in architectures]

    def measure_graph(self, graph: bytes, *, within: float = 0.03) -> Latency:
        raise WorkerError("Traceback ...\nRuntimeError: no such layer")


def test_refused_networks_leave_the_others_timed() -> None:
    progress, names = ProgressLine(silent=True), ("ndnet45-fcn32", "erfnet", "ndnet29-fcn32", "ndnet61-fcn32")
    networks, graphs = {name: space.load(name) for name in names}, {"ndnet61-fcn32": b"a graph"}
    measured, refused = in_rounds(Refusing(), networks, graphs, 3, 0.03, progress)
    assert {name: latency.processes_milliseconds for name, latency in measured.items()} == {
        "ndnet45-fcn32": (2.5, 2.5, 2.5),
        "ndnet29-fcn32": (2.5, 2.5, 2.5),
    }, "by the last anchor"
    assert {name: str(reason) for name, reason in refused.items()} == {
        "erfnet": "it gives other labels",
        "ndnet61-fcn32": "RuntimeError: no such layer",
    }
    budget, latencies = Budget.parse("5ms"), measured.values()
    assert (judged(latencies, budget), judged(latencies, budget, refused)) == ("PASS", "UNSURE")
    measured, refused = in_rounds(Refusing(last=2), networks, graphs, 3, 0.03, progress)
    assert measured["ndnet29-fcn32"].processes_milliseconds == (2.5, 2.5), "good rounds are not lost"
    assert str(refused["ndnet29-fcn32"]) == "it is tired"


def test_the_worst_verdict_on_all_networks_counts() -> None:
    unsure = replace(QUIET, ci_high_milliseconds=9.0)
    over = replace(unsure, p50_milliseconds=8.0, p90_milliseconds=8.5, p99_milliseconds=9.0, ci_low_milliseconds=7.0)
    budget = Budget.parse("5ms")
    assert judged([QUIET, unsure], budget) == "UNSURE"
    assert judged([unsure, over, QUIET], budget, ["erfnet"]) == "FAIL"


def test_the_reason_why_no_network_could_be_timed_names_each_refusal_or_a_fault() -> None:
    target, reasons = Target.parse("torch@cpu:1"), dict[str, UnmeasuredError]()
    for name in ("erfnet", "fplnet"):
        reasons[name] = UnmeasuredError("other labels")
        reasons[name].__cause__ = TargetError("other labels")
    assert "torch@cpu:1 can time, got none: erfnet: other labels; fplnet: other labels" in str(
        why_none(reasons, target)
    )
    reasons["fplnet"].__cause__ = short = WorkerError("Traceback ...\nMemoryError")
    assert why_none(reasons, target) is short
