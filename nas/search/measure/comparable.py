"""Checks that latencies compare: a run's folder may move to another device, or be timed by other versions."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping
from dataclasses import replace

from nas.runs.earlier import Earlier, read_earlier, write_earlier
from nas.runs.folder import RunFolder
from space.errors import UserError

GPU = ("gpu", "gpu_capability")
GPU_MEMORY = "gpu_memory_mebibytes"
SAME_MEMORY = 0.1  # share of GPU memory: drivers reserve less than this, boards of one name differ by more
CPU = ("cpu", "threads")
MEANING = ("reference", "protocol")  # the network that a latency is a ratio to, and the timing protocol
AROUND = ("host", "node", "system", "cores", "python", "cpu")
"""Entries of a latency's environment that may differ without a note: the machine around the device."""
OF_TARGET = ("runtime", "precision", "threads")
"""Entries that the study sets, or chooses for each candidate."""


def require_same_device(run: RunFolder, environment: Mapping[str, str]) -> str:
    """Check that the device of the present `environment` (`nas.latency.record.Latency.environment`) is of the kind that
    a run's candidates were timed on. Returns in words which versions changed since the last one; empty if none did.

    Raises: UserError where the device or the way of timing is another: the milliseconds would not compare.
    """
    timed = [trial.latency.environment for trial in (*run.company(), *run.trials()) if trial.latency is not None]
    for before in timed:
        if changed := incomparable(before, environment):
            raise UserError(
                f"{run.root}: its candidates were timed otherwise ({changed}), so that latencies would not compare; go "
                f"on with it on that device, or begin a new search on this one with --from {shlex.quote(str(run.root))}"
                ", which takes over what was trained"
            )
    return other_versions(timed[-1], environment) if timed and timed[-1] else ""


def leave_out_other_devices(run: RunFolder, environment: Mapping[str, str]) -> int:
    """Remove the latencies that earlier runs (`nas.runs.earlier`) timed on another kind of device, since they would
    distort estimates; returns their number.
    """
    earlier = read_earlier(run)
    kept = tuple(
        replace(each, latency=None)
        if each.latency is not None and incomparable(each.latency.environment, environment)
        else each
        for each in earlier.trials
    )
    left_out = sum(one.latency != other.latency for one, other in zip(kept, earlier.trials, strict=True))
    if left_out:
        write_earlier(run, Earlier(trials=kept))
    return left_out


def incomparable(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In words, the differences between two environments that make latencies incomparable; empty if there are none.

    Entries missing in the earlier environment are ignored: earlier versions recorded less.
    """
    on_gpu = "gpu" in now
    names = [name for name in (*(GPU if on_gpu else CPU), *MEANING) if name in before]
    if on_gpu and GPU_MEMORY in before and not _nearly_as_much(before[GPU_MEMORY], now.get(GPU_MEMORY, "")):
        names.append(GPU_MEMORY)
    return _changes(before, now, names)


def _nearly_as_much(before: str, now: str) -> bool:
    """Whether two numbers of records nearly agree; the records may be damaged."""
    try:
        one, other = sorted((int(before), int(now)))
    except ValueError:
        return before == now
    return other - one <= SAME_MEMORY * other


def other_versions(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In words, the differences between two environments beside the device and the machine around it."""
    return _changes(before, now, sorted({*before, *now} - {*GPU, GPU_MEMORY, *MEANING, *AROUND, *OF_TARGET}))


def _changes(before: Mapping[str, str], now: Mapping[str, str], names: Collection[str]) -> str:
    """In words, the named values that differ; empty if none does."""
    differing = [name for name in names if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name, '-')} before, {now.get(name, '-')} now" for name in differing)
