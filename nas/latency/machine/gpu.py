"""What slowed a GPU down while we timed on it, and which other processes computed there: by NVML, without root.

NVML is part of NVIDIA's driver. If it is missing or does not answer, nothing is detected and nothing is flagged.

NVML lists the processes that have the GPU open, which includes trainings that wait for our timing to end. Launching
work takes processor time, so only processes that use some during the timing are reported to compute.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.errors import TargetError

# https://docs.nvidia.com/deploy/nvml-api/group__nvmlClocksEventReasons.html; idle and set clocks are no slowdown
SLOWDOWNS = {
    0x04: "its power cap",
    0x08: "a hardware slowdown",
    0x20: "heat",
    0x40: "heat (hardware)",
    0x80: "the power brake",
}
REASONS = (  # the second is the name of the first in drivers before 535
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)
PROCESSES = ("nvmlDeviceGetComputeRunningProcesses",)
DRIVER = Path("/proc/driver/nvidia/gpus")  # one folder per GPU
VISIBLE = "CUDA_VISIBLE_DEVICES"
LAUNCHING_SHARE = 0.05  # of the time; less processor time is housekeeping
SLACK_SECONDS = 0.02  # two ticks of the kernel's clock


@dataclass(frozen=True, kw_only=True)
class GpuState:
    """State of a GPU at one moment, according to NVML."""

    reasons: int = 0
    """Why the clocks are held down: bits, including those of `SLOWDOWNS`."""
    others: Mapping[int, float] = field(default_factory=dict)
    """Processor time in seconds used so far by each other process that has the GPU open, by its process ID."""


UNSEEN = GpuState()


def read(device: str) -> GpuState:
    """The state of `cuda:N`, numbered as torch numbers GPUs; `UNSEEN` if NVML is missing."""
    import pynvml

    handle = _handle(device)
    return UNSEEN if handle is None else state_of(pynvml, handle)


def state_of(nvml: Any, handle: Any) -> GpuState:
    """The state of a device by the module `nvml`. A MIG slice or an older driver does not answer everything."""
    reasons = _first_answer(nvml, handle, REASONS) or 0
    processes = _first_answer(nvml, handle, PROCESSES) or ()
    there = {int(process.pid) for process in processes}
    if os.getpid() not in there:  # in a container: the driver knows other process IDs
        return GpuState(reasons=int(reasons))
    used = {process: processor_seconds(process) for process in there - {os.getpid()}}
    others = {process: seconds for process, seconds in used.items() if seconds is not None}
    return GpuState(reasons=int(reasons), others=others)


def _first_answer(nvml: Any, handle: Any, functions: Sequence[str]) -> Any:
    """The result of the first of these functions that both the library and the driver know; None if they know none."""
    for function in functions:
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            return getattr(nvml, function)(handle)
    return None


def name_of(device: str) -> str:
    """A GPU's name that is the same in every process, whichever GPUs that sees; empty for the CPU."""
    if device == "cpu":
        return ""
    import torch

    return f"{torch.cuda.get_device_properties(device).uuid}"


def count() -> int:
    """Number of GPUs that this process sees."""
    import torch

    return torch.cuda.device_count()


def others(device: str) -> tuple[str, ...]:
    """The GPUs that this process sees other than `cuda` or `cuda:N`."""
    own = int(device.partition(":")[2] or 0)
    return tuple(f"cuda:{number}" for number in range(count()) if number != own)


def training_device() -> str:
    """`cuda` if torch can compute on a GPU, `cpu` if there is none or CUDA_VISIBLE_DEVICES hides them all.

    Raises: TargetError when there is a GPU that torch cannot use: training on the CPU instead would take a hundred
    times as long, which nobody intends. The message says which wheels to install.
    """
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if os.environ.get(VISIBLE, "unset") in ("", "-1", "NoDevFiles"):
        return "cpu"
    gpus, driver = _gpus_of_driver()
    if not gpus:
        return "cpu"
    raise TargetError(
        f"there is a GPU here, but torch {torch.__version__} cannot use it: "
        f"{wheels(torch.version.cuda, driver)}; or set {VISIBLE}= to compute on the CPU"
    )


def wheels(build: str | None, driver: int | None) -> str:
    """Why torch finds no GPU, and what to install. `build` is the CUDA version that torch is built for, None for a CPU
    build; `driver` the newest one that the driver runs, as NVML encodes it (12040 is 12.4), None if unknown.
    """
    if driver is None:
        return "the driver does not answer; see what `nvidia-smi` prints"
    newest = f"{driver // 1000}.{driver % 1000 // 10}"
    major = min(driver // 1000, 13)
    if major < 11:
        return f"the driver supports CUDA up to {newest}; install a newer driver (525 or later)"
    index, extra = {11: ("cu118", "dali-cu12"), 12: ("cu126", "dali-cu12"), 13: ("cu130", "dali-cu13")}[major]
    install = (
        "pip install --force-reinstall 'torch>=2.6,<2.14' --index-url "
        f"https://download.pytorch.org/whl/{index}, and the extra {extra}"
    )
    if build is None:
        return f"it is a CPU build; {install}"
    if int(build.partition(".")[0]) > driver // 1000:
        return f"it is built for CUDA {build}, the driver supports CUDA up to {newest}; {install}, or a newer driver"
    return f"CUDA {build} does not start although the driver supports {newest}; see `nvidia-smi` and `nas doctor`"


def _gpus_of_driver() -> tuple[int, int | None]:
    """Number of GPUs according to the driver, and the newest CUDA that it runs, None if unknown."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount(), int(pynvml.nvmlSystemGetCudaDriverVersion())
    except (pynvml.NVMLError, AttributeError):
        return len(list(DRIVER.glob("*"))), None


def slowdowns(spans: Sequence[tuple[GpuState, GpuState]], seconds: float) -> tuple[str, ...]:
    """Reasons to distrust what was timed between these pairs of states, in `seconds` altogether."""
    seen = functools.reduce(lambda mask, span: mask | span[1].reasons, spans, 0)
    found = [f"{why} held the GPU's clocks down" for bit, why in SLOWDOWNS.items() if seen & bit]
    used: dict[int, float] = {}
    for before, after in spans:
        for process in before.others.keys() & after.others.keys():
            used[process] = used.get(process, 0.0) + after.others[process] - before.others[process]
    launching = sum(busy > LAUNCHING_SHARE * seconds + SLACK_SECONDS for busy in used.values())
    if launching:
        found.append(f"other processes computed on the GPU: {launching}")
    return tuple(found)


def processor_seconds(process: int) -> float | None:
    """Processor time in seconds that a process has used; None if it does not exist or has ended.

    Source: proc_pid_stat(5), fields 14 and 15, counted after the name in brackets, which may contain anything.
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
