"""Latencies compare where they were taken on one kind of device in one way, and a run's folder can be carried away."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from nas.runs.earlier import Earlier, read_earlier, write_earlier
from nas.runs.folder import RunFolder
from space.errors import UserError

GPU = ("gpu", "gpu_capability")
GPU_MEMORY = "gpu_memory_mebibytes"
SAME_MEMORY = 0.1  # what drivers take of one GPU's memory differs by less than this share, and boards of a name by more
CPU = ("cpu", "threads")
MEANING = ("reference", "protocol")  # what a latency is a ratio to, and how it is taken
AROUND = ("host", "node", "system", "cores", "python", "cpu")
"""What may differ unsaid, of a latency's environment: the machine around the device."""
OF_TARGET = ("runtime", "precision", "threads")
"""What the study says, or chooses for each candidate."""


def require_same_device(run: RunFolder, environment: Mapping[str, str]) -> str:
    """Hold the `environment` of what times now (`nas.latency.record.Latency.environment`) to those that a run's
    candidates were timed in. In words, which versions are others than those of the last one; empty where none is.

    Raises: UserError where the device is of another kind, or times otherwise: milliseconds would be compared that mean
    different things.
    """
    timed = [trial.latency.environment for trial in (*run.company(), *run.trials()) if trial.latency is not None]
    for before in timed:
        if changed := incomparable(before, environment):
            raise UserError(
                f"{run.root}: its candidates were timed otherwise ({changed}), and the latencies do not compare; go "
                f"on with it on that device, or begin a new search on this one with --from {run.root}, which takes "
                "over what was trained"
            )
    return other_versions(timed[-1], environment) if timed and timed[-1] else ""


def leave_out_other_devices(run: RunFolder, environment: Mapping[str, str]) -> int:
    """Forget what earlier runs timed (`nas.runs.earlier`) on another kind of device than what times now, and how many
    latencies that were: estimates would be made of them.
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
    """In words, what two environments differ in so that latencies do not compare; earlier versions recorded less."""
    on_gpu = "gpu" in now
    names = [name for name in (*(GPU if on_gpu else CPU), *MEANING) if name in before]
    if on_gpu and GPU_MEMORY in before and not _nearly_as_much(before[GPU_MEMORY], now.get(GPU_MEMORY, "")):
        names.append(GPU_MEMORY)
    return _changes(before, now, names)


def _nearly_as_much(before: str, now: str) -> bool:
    """Of two numbers in records, which may be damaged."""
    try:
        one, other = sorted((int(before), int(now)))
    except ValueError:
        return before == now
    return other - one <= SAME_MEMORY * other


def other_versions(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """In words, what differs beside the device and the machine around it."""
    return _changes(before, now, sorted({*before, *now} - {*GPU, GPU_MEMORY, *MEANING, *AROUND, *OF_TARGET}))


def _changes(before: Mapping[str, str], now: Mapping[str, str], names: Collection[str]) -> str:
    """In words, which of the named values differ; empty where none does."""
    differing = [name for name in names if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name, '-')} before, {now.get(name, '-')} now" for name in differing)
