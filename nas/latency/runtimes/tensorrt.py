"""TensorRT on an NVIDIA GPU: an engine built from the graph that `nas export` writes, input and labels on the GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.export.formats import tensorrt as engines
from nas.latency.runtimes import torch as eager
from nas.latency.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cuda": ("fp32", "fp16")}


def available(target: Target) -> str | None:
    return engines.missing_library() or eager.available(target)


def versions() -> dict[str, str]:
    return {engines.LIBRARY: engines.version(), **eager.versions()}


def settle(target: Target) -> None:
    """Nothing: an engine does not depend on how the process is set up."""


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import torch

    from nas.export.graph import onnx_bytes

    height, width = image.shape[-2:]
    with torch.cuda.device(target.device):
        plan = engines.build(onnx_bytes(network, (height, width), labels=True), half=target.precision == "fp16")
        return engines.open_plan(plan, image.to(device=target.device).contiguous())
