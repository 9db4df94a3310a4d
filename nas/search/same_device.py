"""Latencies compare where they were taken on one kind of device, and a run's folder can be carried to another one."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nas.runs.folder import RunFolder
from space.errors import UserError

GPU = ("gpu", "gpu_memory_mebibytes", "gpu_capability")
CPU = ("cpu",)
NO_VERSIONS = (*GPU, *CPU, "host", "node", "system", "cores", "python", "runtime", "precision", "threads")


def require_same_device(run: RunFolder, environment: Mapping[str, str]) -> str:
    """Hold the `environment` of what times now (`nas.latency.record.Latency.environment`) to those that a run's
    candidates were timed in. In words, which versions are others than those of the last one; empty where none is.

    Raises: UserError where the device is of another kind: its milliseconds would be compared with those of the other.
    """
    timed = [trial.latency.environment for trial in (*run.company(), *run.trials()) if trial.latency is not None]
    device = GPU if "gpu" in environment else CPU
    for before in timed:
        if changed := changes(before, environment, [name for name in device if name in before]):
            raise UserError(
                f"{run.root}: its candidates were timed on another device ({changed}), and the latencies of two do not "
                f"compare; go on with it where it began, or begin a new search here with --from {run.root}, which "
                "takes over what was trained"
            )
    versions = [name for name in environment if name not in NO_VERSIONS and timed and name in timed[-1]]
    return changes(timed[-1], environment, versions) if versions else ""


def changes(before: Mapping[str, str], now: Mapping[str, str], names: Collection[str]) -> str:
    """In words, which of the named values differ; empty where none does."""
    differing = [name for name in names if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name, '-')} before, {now.get(name, '-')} now" for name in differing)
