"""PyTorch captured once as a CUDA graph and replayed: the GPU's own time, without launching every kernel.

Capture follows https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs: warm up on a side stream, capture
with static input and output, replay. The network must not request a value on the host (`.item()`), which none of ours
does.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from nas.latency.runtimes import torch as eager
from nas.latency.target import Target

if TYPE_CHECKING:
    import torch

PRECISIONS = {"cuda": ("fp32", "fp16")}
WARM_UP_CALLS = 3  # cuDNN and cuBLAS choose algorithms and workspaces in the first calls, which capture forbids

available = eager.available
versions = eager.versions


def settle(target: Target) -> None:
    """Nothing to do: replaying a graph does not depend on how the process is set up."""


def prepare(network: torch.nn.Module, image: torch.Tensor, target: Target) -> Callable[[], torch.Tensor]:
    import torch

    from space.network import labels_of

    placed, held = eager.place(network, image, target)
    device = torch.device(target.device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(device), torch.no_grad():
        side = torch.cuda.Stream(device=device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                labels_of(placed, held)
        torch.cuda.current_stream(device).wait_stream(side)
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph):
            labels: torch.Tensor = labels_of(placed, held)

    # The graph holds bare addresses, so weights and input have to live as long as it does.
    return functools.partial(_replay, graph, labels, (placed, held))


def _replay(graph: torch.cuda.CUDAGraph, labels: torch.Tensor, owners: tuple[object, ...]) -> torch.Tensor:
    import torch

    with torch.cuda.device(labels.device):
        graph.replay()
        torch.cuda.synchronize()
    return labels
