"""What slowed a GPU down while we measured on it, and who else computed there: by NVML, without root.

NVML is read through nvidia-ml-py (`pip install nvidia-ml-py`). Without it nothing is seen, and nothing is flagged.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from dataclasses import dataclass
from typing import Any

# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html; idle and set clocks are no slowdown
SLOWDOWNS = {
    0x04: "its power cap",
    0x08: "a hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "the power brake",
}


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """At one moment: the mask of reasons why clocks are held down, and how many other processes compute there."""

    reasons: int = 0
    strangers: int = 0


UNSEEN = GpuState()


def read(device: str) -> GpuState:
    """The state of `cuda:N`, counted as torch counts; nothing seen where NVML is missing."""
    handle = _handle(device)
    if handle is None:
        return UNSEEN
    import pynvml

    try:
        reasons = int(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        processes = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:  # a slice of a GPU, or a driver that does not tell
        return UNSEEN
    return GpuState(reasons=reasons, strangers=sum(process.pid != os.getpid() for process in processes))


def slowdowns(states: list[GpuState]) -> tuple[str, ...]:
    """Reasons to distrust what was timed while a GPU was in these states."""
    seen = functools.reduce(lambda mask, state: mask | state.reasons, states, 0)
    found = [f"{why} held the GPU's clocks down" for bit, why in SLOWDOWNS.items() if seen & bit]
    strangers = max((state.strangers for state in states), default=0)
    if strangers:
        found.append(f"other processes computed on the GPU: {strangers}")
    return tuple(found)


@functools.cache
def _handle(device: str) -> Any:
    if importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml
    import torch

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}".encode())
    except (pynvml.NVMLError, RuntimeError):
        return None
