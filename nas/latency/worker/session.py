"""Session: the target and controls of one measuring process, and the networks that it builds to be timed."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from nas.errors import TargetError
from nas.host.words import one_line
from nas.latency import runtimes
from nas.latency.machine import device_key
from nas.latency.protocol import VERSION
from nas.latency.protocol.controls import Controls
from nas.latency.protocol.ready import LocalNetwork
from nas.latency.target import Target
from space.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from space.architecture import Architecture

# Largest difference between two logits that counts as a tie when a timed network's labels are compared with PyTorch's
# in fp32, as a share of the range of logits. PyTorch lets convolutions use TF32 (10 bits) for fp32 on a GPU.
EXACT_TIE = 1e-4  # fp32 on the CPU
TF32_TIE = 5e-3  # fp32 on a GPU
COARSE_TIE = 2e-2  # every lower precision
AS_EXACT = 2.0  # most labels that may differ from double precision, as a multiple of how many of PyTorch's do
OPEN = 2.0  # shift in standard deviations: most activations are then positive, and below the bound of ReLU6


@dataclass(frozen=True, kw_only=True)
class ControlGraphs:
    """The controls as ONNX graphs in full precision, exported once for all measuring processes."""

    reference: bytes
    canary: bytes

    @classmethod
    def exported(cls, size: tuple[int, int]) -> ControlGraphs:
        """Export the controls for an input size (H, W)."""
        from nas.export.graph import onnx_bytes
        from nas.latency.protocol.reference import CANARY_SIZE, Canary, Reference

        return cls(
            reference=onnx_bytes(Reference(), size, labels=True), canary=onnx_bytes(Canary(), CANARY_SIZE, labels=True)
        )


class Session:
    """A target at an input size (H, W), with the controls prepared on it. There is one per process.

    `controls`: the controls as graphs, if the runtime reads graphs.

    Raises: TargetError when the target cannot be timed here.
    """

    def __init__(self, target: Target, size: tuple[int, int], controls: ControlGraphs | None = None) -> None:
        from nas.latency.protocol.reference import CANARY_SIZE, Canary, Reference

        self.target = target
        self.runtime = runtimes.require(target)
        self.runtime.settle(target)
        self.image = noise(size)
        small, beside = noise(CANARY_SIZE), target.of_reference()
        reference: Callable[[], object]
        canary: Callable[[], object]
        if controls is None:
            reference = self.runtime.prepare(Reference().eval(), self.image, beside)
            canary = self.runtime.prepare(Canary().eval(), small, beside)
        else:
            reader = cast(runtimes.GraphRuntime, self.runtime)
            reference = reader.open_graph(controls.reference, self.image.numpy(), beside)
            canary = reader.open_graph(controls.canary, small.numpy(), beside)
        self.environment = environment(target)
        self.controls = Controls(
            reference=reference,
            canary=canary,
            key=device_key.key_of_anchor(self.environment, target, size),
            threads=target.thread_count(),
            device=target.device,
            watch=runtimes.watch(self.runtime),
        )

    def candidate(self, network: nn.Module) -> LocalNetwork:
        """The network prepared on the target.

        Raises: TargetError when the runtime's labels are not PyTorch's.
        """
        call = self.runtime.prepare(network, self.image, self.target)
        check_labels(network, self.image, call().cpu(), self.target)
        return LocalNetwork(call, self.controls)

    def graph(self, graph: bytes) -> LocalNetwork:
        """An ONNX graph that outputs labels, prepared on a target whose runtime reads graphs. The labels are not
        checked.
        """
        open_timed = runtimes.timed_graph(cast(runtimes.GraphRuntime, self.runtime))
        return LocalNetwork(open_timed(graph, self.image.numpy(), self.target), self.controls)


def check_labels(network: nn.Module, image: Tensor, labels: Tensor, target: Target) -> None:
    """Make sure that the `labels` that `target` gives for a network are those of PyTorch, up to ties.

    `image` (1, 3, H, W) and `labels` (1, H, W) are on the CPU. INT8 is not checked: the share of labels that it changes
    means nothing for an untrained network, and trained ones are scored on real images (`nas.quantization`).

    Raises: TargetError when the labels differ.
    """
    if target.precision == "int8":
        return
    from nas.export.comparison import SAME_LABELS, logits_of, same_labels

    tie = tie_of(target)
    logits = logits_of(network, image)
    share = same_labels(logits, labels, tie)
    if share >= SAME_LABELS:
        return
    # An untrained network may amplify rounding errors until they decide the labels, those of PyTorch too.
    exact = logits_of(copy.deepcopy(network).double(), image.double())
    of_pytorch, of_runtime = same_labels(exact, logits.argmax(1), tie), same_labels(exact, labels, tie)
    if not 1 - of_runtime <= max(1 - SAME_LABELS, AS_EXACT * (1 - of_pytorch)):
        raise TargetError(
            f"{target} gives other labels than PyTorch on {1 - share:.2%} of the pixels, so its latency would not be "
            "that of this network; choose another runtime or precision"
        )


def environment(target: Target) -> dict[str, str]:
    """What a latency on `target` depends on: device, precision, threads, versions, the reference and the protocol."""
    from nas.latency.protocol.reference import NAME

    return runtimes.environment(target) | {"reference": NAME, "protocol": VERSION}


def tie_of(target: Target) -> float:
    """Largest difference between two logits that counts as a tie on `target`, as a share of the range of logits."""
    if target.precision != "fp32":
        return COARSE_TIE
    return TF32_TIE if target.on_cuda else EXACT_TIE


def build(architecture: Architecture, weights: str | None, num_classes: int) -> nn.Module:
    """The network to time: with trained `weights` (safetensors in base64), or untrained but with activations of a
    trained network's magnitude.

    Raises: UserError when the weights cannot be read or belong to another architecture.
    """
    import torch

    torch.manual_seed(0)
    network: nn.Module = architecture.build(num_classes)
    if weights is None:
        _settle_norms(network)
    else:
        _load(network, weights)
    return network.eval()


def _load(network: nn.Module, weights: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        state = load(base64.b64decode(weights))
    except SafetensorError as error:
        raise UserError(f"expected weights as safetensors: {error}; train the network again") from None
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        problem = one_line(error, 300)
        raise UserError(f"the weights belong to another architecture: {problem}") from None


def _settle_norms(network: nn.Module) -> None:
    """Give untrained batch norms the statistics of noise, without which activations of deep networks may exceed fp16.

    Their shift makes most activations positive. With a shift of zero, each pair of batch norm and ReLU amplifies
    differences by a factor of 1.2: after fifty of them PyTorch's own rounding would decide the labels, and no runtime
    could be expected to agree with it.
    """
    import torch
    from torch import nn

    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
        nn.init.constant_(norm.bias, OPEN)
    with torch.no_grad():
        network.train()(torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum


def noise(size: tuple[int, int]) -> Tensor:
    """The image (1, 3, H, W) that networks are timed on."""
    import torch

    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
