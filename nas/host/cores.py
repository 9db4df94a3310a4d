"""Number of processor cores that this process may use: those that it is pinned to, at most a container's quota.

`os.cpu_count()` counts the cores of the machine, of which a pinned process or a container (`docker run --cpus 2`,
Kubernetes, a batch system) has fewer. Threads beyond the number of cores only wait for each other, and are stopped in
the middle of a timing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from nas.host.control_groups import GROUPS, MOUNTS, control_groups, text_of


def usable_cores(groups: Path = GROUPS, mounts: Path = MOUNTS) -> int:
    """Number of cores of this process, at least 1: the least of its affinity and the quotas of its control groups.

    `groups` and `mounts` are where the kernel shows control groups.
    """
    pinned = len(os.sched_getaffinity(0))
    return max(1, min(pinned, *(int(quota) for quota in _quotas(groups, mounts)), pinned))


def _quotas(groups: Path, mounts: Path) -> Iterator[float]:
    """Processor time that each control group around this process allows, in cores."""
    for folder, version_1 in control_groups("cpu", groups, mounts):
        if version_1:
            words = [text_of(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
        else:
            words = text_of(folder / "cpu.max").split()
        if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):  # else `max` or -1
            yield int(words[0]) / int(words[1])
