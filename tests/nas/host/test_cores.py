"""The number of usable cores, from control groups as kernels show them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas.host.cores import usable_cores


def cores(tmp_path: Path, groups: str, files: dict[str, str]) -> int:
    (tmp_path / "cgroup").write_text(groups)
    for name, text in files.items():
        file = tmp_path / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return usable_cores(tmp_path / "cgroup", tmp_path / "fs")


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)))


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),  # docker run --cpus 2, with a name space of its own
        (
            "0::/\n",
            {"cpu.max": "350000 100000\n"},
            3,
        ),  # three and a half: a fourth thread would be stopped half the time
        ("0::/\n", {"cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, 16),
        ("0::/job/step\n", {"job/cpu.max": "400000 100000\n", "job/step/cpu.max": "max 100000\n"}, 4),  # the one above
        ("0::/docker/0123\n", {"cpu.max": "200000 100000\n"}, 2),  # a path of the host only
        (
            "4:memory:/m\n3:cpu,cpuacct:/docker/0123\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 16),
        ("3:cpuset:/x\n", {"cpu.max": "100000 100000\n"}, 16),  # another controller's group
        ("", {}, 16),  # no control groups at all
        ("0::/\n", {"cpu.max": "\n"}, 16),
        ("0::/\n", {"cpu.max": "100000 0\n"}, 16),
        ("0::/\n", {"cpu.max": "9000000 100000\n"}, 16),  # more cores than the machine has
    ],
)
def test_a_containers_quota_counts(tmp_path: Path, groups: str, files: dict[str, str], expected: int) -> None:
    assert cores(tmp_path, groups, files) == expected
