"""Time of each layer of a network, measured in PyTorch.

A deployed runtime fuses layers and does not report their times separately, so these are shares to reason with, not the
latency, which `nas.latency` measures as a whole. If each label stands for several pixels, labels are repeated rather
than logits, as in deployed networks.
"""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from nas.host.memory import require_inference
from nas.latency.machine import gpu, lane
from space import Architecture
from space.channels import widths
from space.graph import Node
from space.network import Network

PASSES = 15
WARM_UP_PASSES = 3


def layer_milliseconds(
    architecture: Architecture,
    size: tuple[int, int],
    num_classes: int,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> tuple[float, ...]:
    """Median milliseconds of every layer, in the order of `space.layers`: eager, float32, one image, unfused."""
    require_inference(architecture, size, num_classes, device=device)
    network = _timed(architecture, num_classes).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.eval()
    image = torch.randn(1, 3, *size, device=device).contiguous(memory_format=torch.channels_last)
    if threads is not None:
        torch.set_num_threads(threads)
    passes = []
    with lane.exclusive(gpu.name_of(device)), torch.inference_mode():
        for _ in range(WARM_UP_PASSES + PASSES):
            network.milliseconds = []
            network(image)
            passes.append(network.milliseconds)
    return tuple(statistics.median(times) for times in zip(*passes[WARM_UP_PASSES:], strict=True))


def _timed(architecture: Architecture, num_classes: int) -> _Timed:
    graph = architecture.graph(num_classes)
    return _Timed(
        graph,
        widths(graph, architecture.channels),
        architecture=architecture,
        num_classes=num_classes,
    )


class _Timed(Network):
    """The network with a clock around every layer. Returns labels where logits would be repeated."""

    milliseconds: list[float]

    def _run(self, node: Node, inputs: list[Tensor], image: Tensor, size: tuple[int, int]) -> Tensor:
        if node.kind == "repeat":
            inputs = [inputs[0].argmax(1)]
            _settle(inputs[0])
        start = time.perf_counter_ns()
        output = super()._run(node, inputs, image, size)
        _settle(output)
        if node.kind != "image":
            self.milliseconds.append((time.perf_counter_ns() - start) / 1e6)
        return output


def _settle(value: Tensor) -> None:
    """Wait until the value is computed."""
    if value.is_cuda:
        torch.cuda.synchronize(value.device)
