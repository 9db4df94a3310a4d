"""What slowed a GPU down while we measured on it, and who else computed there: by NVML, without root.

NVML is part of NVIDIA's driver. Where there is none, or it does not tell, nothing is seen and nothing is flagged.

NVML tells which processes have the GPU open; a training that waits while we time has it open too. To launch work takes
processor time, so only processes that use some while we time are said to compute.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html; idle and set clocks are no slowdown
SLOWDOWNS = {
    0x04: "its power cap",
    0x08: "a hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "the power brake",
}
LAUNCHING_SHARE = 0.05  # of the time: less is housekeeping
SLACK_SECONDS = 0.02  # two ticks of the kernel's clock


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """What NVML says of a GPU at one moment."""

    reasons: int = 0
    """Why clocks are held down: bits, those of `SLOWDOWNS` among them."""
    others: Mapping[int, float] = field(default_factory=dict)
    """Processor time in seconds that each other process has used so far, by its number, that has the GPU open."""


UNSEEN = GpuState()


def read(device: str) -> GpuState:
    """The state of `cuda:N`, counted as torch counts; `UNSEEN` where NVML is missing."""
    import pynvml

    handle = _handle(device)
    if handle is None:
        return UNSEEN
    try:
        reasons = int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        there = {int(process.pid) for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)}
    except pynvml.NVMLError:  # a slice of a GPU, or a driver that does not tell
        return UNSEEN
    if os.getpid() not in there:  # a container's numbers of processes are not those that the driver knows
        return GpuState(reasons=reasons)
    used = {process: processor_seconds(process) for process in there - {os.getpid()}}
    others = {process: seconds for process, seconds in used.items() if seconds is not None}
    return GpuState(reasons=reasons, others=others)


def slowdowns(spans: Sequence[tuple[GpuState, GpuState]], seconds: float) -> tuple[str, ...]:
    """Reasons to distrust what was timed between these pairs of states, `seconds` in all."""
    seen = functools.reduce(lambda mask, span: mask | span[1].reasons, spans, 0)
    found = [f"{why} held the GPU's clocks down" for bit, why in SLOWDOWNS.items() if seen & bit]
    used: dict[int, float] = {}
    for before, after in spans:
        for process in before.others.keys() & after.others.keys():
            used[process] = used.get(process, 0.0) + after.others[process] - before.others[process]
    launching = sum(each > LAUNCHING_SHARE * seconds + SLACK_SECONDS for each in used.values())
    if launching:
        found.append(f"other processes computed on the GPU: {launching}")
    return tuple(found)


def processor_seconds(process: int) -> float | None:
    """Processor time that a process has used; None when there is no such process, or no more.

    Source: proc_pid_stat(5), fields 14 and 15, counted after the name in brackets, which may hold anything.
    """
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@functools.cache
def _handle(device: str) -> Any:
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
    except (pynvml.NVMLError, RuntimeError):
        return None
