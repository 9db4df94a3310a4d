"""Networks timed in rounds: each round times every network once, on a CPU in a new process, so that the processes of a
network are spread over the whole time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from nas.errors import UnmeasuredError
from nas.latency.budget import Budget, Verdict
from nas.latency.careful import CarefulMeter, is_refusal, time_each
from nas.latency.meter import MeasuresFinished
from nas.latency.record import Latency
from nas.latency.scope import scope_of
from nas.latency.several import anchored, pooled
from nas.latency.target import Target
from nas.terminal import ProgressLine
from space.architecture import Architecture


def in_rounds(
    meter: MeasuresFinished,
    architectures: Mapping[str, Architecture],
    graphs: Mapping[str, bytes],
    rounds: int,
    within: float,
    progress: ProgressLine,
) -> tuple[dict[str, Latency], dict[str, UnmeasuredError]]:
    """Latencies of networks, each timed in as many processes as there are rounds, and the errors of those that could
    not be timed, which are left out of later rounds. Networks in `graphs` are timed as these ONNX graphs. If the device
    was anchored anew meanwhile, all milliseconds refer to the last anchor.

    Raises: TargetError, ExportError or HaltedError when the target times nothing at all.
    """
    found: dict[str, list[Latency]] = {name: [] for name in architectures}
    refused: dict[str, UnmeasuredError] = {}
    reference = 0.0
    for number in range(1, rounds + 1):
        left = {name: each for name, each in architectures.items() if name not in refused}
        with progress.over(f"timed in turns, round {number} of {rounds}" if rounds > 1 else "timed in turns", 0):
            timed = _round(meter, left, graphs, within)
        for name, latency in timed.items():
            if isinstance(latency, UnmeasuredError):
                refused[name] = latency
            else:
                found[name].append(latency)
                reference = latency.reference_milliseconds
    measured = {name: pooled([anchored(one, reference) for one in each]) for name, each in found.items() if each}
    return measured, refused


def _round(
    meter: MeasuresFinished,
    architectures: Mapping[str, Architecture],
    graphs: Mapping[str, bytes],
    within: float,
) -> dict[str, Latency | UnmeasuredError]:
    """The latency or error of each network, timed in one process each."""
    together = [name for name in architectures if name not in graphs]
    in_turns = time_each(meter, [architectures[name] for name in together], within=within)
    found = dict(zip(together, in_turns, strict=True))
    for name in (name for name in architectures if name in graphs):
        try:
            latency = CarefulMeter(meter=meter).measure_graph(graphs[name], within=within)
            found[name] = replace(latency, scope=scope_of(architectures[name]))
        except UnmeasuredError as error:
            found[name] = error
    return found


def why_none(refused: Mapping[str, UnmeasuredError], target: Target) -> BaseException:
    """The error to raise if no network could be timed: the first that is not a refusal by the target, else one with all
    refusals.
    """
    for error in refused.values():
        if error.__cause__ is not None and not is_refusal(error):
            return error.__cause__
    reasons = "; ".join(f"{name}: {error}" for name, error in refused.items())
    return UnmeasuredError(f"expected a network that {target} can time, got none: {reasons}; see `nas doctor`")


def judged(latencies: Iterable[Latency], budget: Budget, refused: Collection[str] = ()) -> Verdict:
    """The worst verdict on a budget; a network that the target `refused` counts as UNSURE."""
    found = {budget.verdict(latency) for latency in latencies}
    return "FAIL" if "FAIL" in found else "UNSURE" if refused or "UNSURE" in found else "PASS"
