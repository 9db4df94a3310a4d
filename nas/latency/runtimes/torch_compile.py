"""PyTorch compiled by Inductor, channels_last, on the CPU. Compiling takes 10-40 s per network and size."""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.latency.runtimes import torch as eager
from nas.latency.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cpu": ("fp32",)}

versions = eager.versions


def available(target: Target) -> str | None:
    if importlib.util.find_spec("torch") is None:
        return "pip install torch"
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++")):
        return "it compiles C++; install g++ (Debian: apt install g++)"
    return None


def settle(target: Target) -> None:
    eager.settle(target)
    try:
        getpass.getuser()
    except (KeyError, OSError):  # Inductor names its folder after the user, who may have no name in a container
        os.environ["USER"] = str(os.getuid())


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import torch

    from space.network import labels_of

    placed, held = eager.place(network, image, target)

    def labels(picture: torch.Tensor) -> torch.Tensor:
        return labels_of(placed, picture)

    compiled = torch.compile(labels, dynamic=False)

    def run() -> torch.Tensor:
        with torch.inference_mode():
            return compiled(held)

    return run
