"""TensorRT on an NVIDIA GPU: an engine built from the graph that `nas export` writes, with input and labels on the GPU.
In int8 the graph is quantized, and the rest of it may be computed in half precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nas.export.formats import tensorrt as engines
from nas.latency.runtimes import torch as eager
from nas.latency.target import Target

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

PRECISIONS = {"cuda": ("fp32", "fp16", "int8")}
LIBRARY = engines.LIBRARY


def available(target: Target) -> str | None:
    return engines.missing_library() or eager.available(target)


def versions() -> dict[str, str]:
    return {LIBRARY: engines.version(), **eager.versions()}


def settle(target: Target) -> None:
    """Nothing to do: an engine does not depend on how the process is set up."""


def open_graph(graph: bytes, image: NDArray[np.float32], target: Target) -> Callable[[], NDArray[Any]]:
    import torch

    given = torch.from_numpy(image)
    held = given.to(device=target.device).contiguous()
    execute = _opened(graph, held, target)

    def run() -> NDArray[Any]:
        held.copy_(given)
        torch.cuda.synchronize(target.device)  # the engine runs in a stream of its own
        labels: NDArray[Any] = execute().cpu().numpy()
        return labels

    return run


def hold_graph(graph: bytes, image: NDArray[np.float32], target: Target) -> Callable[[], torch.Tensor]:
    import torch

    return _opened(graph, torch.from_numpy(image).to(device=target.device).contiguous(), target)


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    from nas.export.quantized import graph_in

    graph = graph_in(target.precision, network, image, on_gpu=True)
    return hold_graph(graph, image.contiguous().numpy(), target)


def _opened(graph: bytes, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    """A call that runs the graph on an `image` on the GPU."""
    import torch

    with torch.cuda.device(target.device):
        plan = engines.build(graph, half=target.precision != "fp32", int8=target.precision == "int8")
        return engines.open_plan(plan, image)
