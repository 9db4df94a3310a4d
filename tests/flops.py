"""The floating-point operations of a network's answer to an image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import conv_flop_count


class _Flops(TorchFunctionMode):
    """PyTorch's formula for convolutions, which all layers with weights are; its FlopCounterMode loads its compiler."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.conv2d, torch.conv_transpose2d):
            transposed = func is torch.conv_transpose2d
            self.total += conv_flop_count(args[0].shape, args[1].shape, out.shape, transposed=transposed)
        return out


def flops_of(network: nn.Module, image: Tensor) -> int:
    with torch.no_grad(), _Flops() as counter:
        network(image)
    return counter.total
