"""Control groups of the kernel (versions 1 and 2), by which containers and batch systems limit a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS, MOUNTS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def control_groups(controller: str, groups: Path = GROUPS, mounts: Path = MOUNTS) -> Iterator[tuple[Path, bool]]:
    """Folders of the groups around this process that a controller (cpu, memory) may limit, from the innermost outward,
    and whether they are of version 1 (cgroups(7)). `groups` and `mounts` are where the kernel shows them.

    In a container, the path that the kernel reports may be that of the host, which does not exist inside; the root of
    the mount is then the container's group.
    """
    for line in text_of(groups).splitlines():
        _, controllers, path = line.split(":", 2)
        version_1 = controller in controllers.split(",")
        if controllers and not version_1:
            continue
        mount = mounts / controller if version_1 else mounts
        group = mount / path.lstrip("/")
        for folder in (group, *(above for above in group.parents if above.is_relative_to(mount))):
            yield folder, version_1


def text_of(file: Path) -> str:
    """Text of a file of the kernel; empty if it does not exist."""
    try:
        return file.read_text("utf-8", errors="replace")
    except OSError:
        return ""
