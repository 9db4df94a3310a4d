"""PyTorch eager: channels_last, no gradients. On a GPU the time includes the launch of every kernel."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.latency.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cpu": ("fp32",), "cuda": ("fp32", "fp16")}


def available(target: Target) -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "pip install torch"
    if not target.on_cuda:
        return None
    import torch

    index = int(target.device.partition(":")[2])
    if index < torch.cuda.device_count():
        return None
    return (
        f"torch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices; use a machine with {target.device} "
        "and a CUDA build of torch, or a target on the cpu"
    )


def versions() -> dict[str, str]:
    import torch

    found = {"torch": str(torch.__version__)}
    if torch.version.cuda:
        found |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}  # type: ignore[no-untyped-call]
    return found


def settle(target: Target) -> None:
    import torch

    torch.set_num_threads(target.thread_count())


def place(network: torch.nn.Module, image: torch.Tensor, target: Target) -> tuple[torch.nn.Module, torch.Tensor]:
    """A copy of network and image on the device of `target`, in its precision and in channels_last layout."""
    import torch

    dtype = {"fp32": torch.float32, "fp16": torch.float16}[target.precision]
    placed = copy.deepcopy(network).eval().requires_grad_(False)
    placed = placed.to(device=target.device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed, image.to(device=target.device, dtype=dtype, memory_format=torch.channels_last)


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import torch

    from space.network import labels_of

    placed, held = place(network, image, target)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            labels: torch.Tensor = labels_of(placed, held)
        if target.on_cuda:
            torch.cuda.synchronize(target.device)
        return labels

    return run
