"""How many processor cores this process may use: those that it is kept to, and no more than a container's quota.

`os.cpu_count()` counts the machine, and a pinned process or a container (`docker run --cpus 2`, Kubernetes, a batch
system) has less of it. More threads than cores only wait for each other, and are stopped in the middle of a timing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS, MOUNTS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cores(groups: Path = GROUPS, mounts: Path = MOUNTS) -> int:
    """Cores of this process, at least one: the lesser of its affinity and the quotas of its control groups.

    `groups` and `mounts` are where the kernel shows control groups.
    """
    pinned = len(os.sched_getaffinity(0))
    return max(1, min(pinned, *(int(quota) for quota in _quotas(groups, mounts)), pinned))


def _quotas(groups: Path, mounts: Path) -> Iterator[float]:
    """Cores' worth of time that each control group above this process allows, of version 1 and 2 (cgroups(7)).

    In a container the path that the kernel tells may be that of the host, which is not there; the mount's own root is
    then the container's group.
    """
    for line in _text(groups).splitlines():
        _, controllers, path = line.split(":", 2)
        version_1 = "cpu" in controllers.split(",")
        if controllers and not version_1:
            continue
        mount = mounts / "cpu" if version_1 else mounts
        group = mount / path.lstrip("/")
        for folder in (group, *(above for above in group.parents if above.is_relative_to(mount))):
            if version_1:
                words = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            else:
                words = _text(folder / "cpu.max").split()
            if len(words) == 2 and all(word.isdecimal() for word in words) and int(words[1]):  # else `max` or -1
                yield int(words[0]) / int(words[1])


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
