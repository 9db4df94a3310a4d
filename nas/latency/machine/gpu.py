"""What slowed a GPU down while we measured on it, and who else computed there: by NVML, without root.

NVML is part of NVIDIA's driver. Where there is none, or it does not tell, nothing is seen and nothing is flagged.

NVML tells which processes have the GPU open; a training that waits while we time has it open too. To launch work takes
processor time, so only processes that use some while we time are said to compute.
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
REASONS = (  # until driver 535 the first had the name of the second
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)
PROCESSES = ("nvmlDeviceGetComputeRunningProcesses",)
DRIVER = Path("/proc/driver/nvidia/gpus")  # a folder for each
VISIBLE = "CUDA_VISIBLE_DEVICES"
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
    return UNSEEN if handle is None else state_of(pynvml, handle)


def state_of(nvml: Any, handle: Any) -> GpuState:
    """What `nvml`, the module, tells of a device. A slice of a GPU and an older driver do not answer every question."""
    reasons = _first_answer(nvml, handle, REASONS) or 0
    processes = _first_answer(nvml, handle, PROCESSES) or ()
    there = {int(process.pid) for process in processes}
    if os.getpid() not in there:  # a container's numbers of processes are not those that the driver knows
        return GpuState(reasons=int(reasons))
    used = {process: processor_seconds(process) for process in there - {os.getpid()}}
    others = {process: seconds for process, seconds in used.items() if seconds is not None}
    return GpuState(reasons=int(reasons), others=others)


def _first_answer(nvml: Any, handle: Any, questions: Sequence[str]) -> Any:
    """The answer to the first of the questions that the library and the driver know; None when they know none."""
    for question in questions:
        with contextlib.suppress(nvml.NVMLError, AttributeError):
            return getattr(nvml, question)(handle)
    return None


def name_of(device: str) -> str:
    """What a GPU of this machine is called in every process, whichever of them it sees; empty for the CPU."""
    if device == "cpu":
        return ""
    import torch

    return f"{torch.cuda.get_device_properties(device).uuid}"


def count() -> int:
    """How many GPUs this process sees."""
    import torch

    return torch.cuda.device_count()


def others(device: str) -> tuple[str, ...]:
    """The GPUs that this process sees beside `cuda` or `cuda:N`."""
    own = int(device.partition(":")[2] or 0)
    return tuple(f"cuda:{number}" for number in range(count()) if number != own)


def training_device() -> str:
    """`cuda` where torch can compute on a GPU, `cpu` where there is none, or CUDA_VISIBLE_DEVICES hides them all.

    Raises: TargetError when there is a GPU that torch cannot use: to train on the CPU instead takes a hundred times as
    long, and nobody meant it. The message says which wheels to install.
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
    """Why a torch built for CUDA `build` (None: a CPU build) finds no GPU, and what to install.

    `driver` is the newest CUDA that the driver runs, as NVML counts: 12040 is 12.4; None when it does not tell.
    """
    if driver is None:
        return "the driver does not answer; see what `nvidia-smi` says"
    newest = f"{driver // 1000}.{driver % 1000 // 10}"
    major = min(driver // 1000, 13)
    if major < 11:
        return f"its driver runs CUDA up to {newest}; install a newer driver (525 or later)"
    index, extra = {11: ("cu118", "dali-cu12"), 12: ("cu126", "dali-cu12"), 13: ("cu130", "dali-cu13")}[major]
    install = (
        "pip install --force-reinstall 'torch>=2.6,<2.14' --index-url "
        f"https://download.pytorch.org/whl/{index}, and the extra {extra}"
    )
    if build is None:
        return f"it is a CPU build; {install}"
    if int(build.partition(".")[0]) > driver // 1000:
        return f"it is built for CUDA {build}, and the driver runs CUDA up to {newest}; {install}, or a newer driver"
    return f"CUDA {build} does not start on a driver for {newest}; see what `nvidia-smi` says, and `nas doctor`"


def _gpus_of_driver() -> tuple[int, int | None]:
    """How many GPUs there are whatever torch says, and the newest CUDA of their driver if it tells."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetCount(), int(pynvml.nvmlSystemGetCudaDriverVersion())
    except (pynvml.NVMLError, AttributeError):
        return len(list(DRIVER.glob("*"))), None


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
