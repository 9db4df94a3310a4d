"""The compute mode of a training on its device: precision and memory layout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from nas.host.processor import has_bf16
from nas.host.words import counted
from nas.training.recipe import Recipe
from space.errors import UserError

Precision = Literal["fp32", "bf16", "fp16"]
MemoryLayout = Literal["channels_last", "plain"]


@dataclass(frozen=True, kw_only=True)
class ComputeMode:
    """Precision and memory layout of a training. They change the duration of steps, and results only by rounding."""

    device: str
    """Kind of device that the mode is for: `cpu`, `cuda`."""
    precision: Precision
    """Precision of convolutions, by autocast; weights, losses and statistics are always float32."""
    layout: MemoryLayout

    def __str__(self) -> str:
        """`fp32, channels last`."""
        return f"{self.precision}, {self.layout.replace('_', ' ')}{' layout' if self.layout == 'plain' else ''}"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch's memory format."""
        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    @property
    def autocast_type(self) -> torch.dtype | None:
        """The type for autocast; None if nothing is cast."""
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]


def usual_mode(network: nn.Module, device: torch.device, recipe: Recipe) -> ComputeMode:
    """The usual compute mode: channels last where that is safe, mixed precision on a GPU if the recipe allows it."""
    layout: MemoryLayout = "channels_last" if _is_safe_channels_last(network, device) else "plain"
    precision: Precision = _mixed(device) if device.type == "cuda" and recipe.mixed_precision else "fp32"
    return ComputeMode(device=device.type, precision=precision, layout=layout)


def modes_of(network: nn.Module, device: torch.device, recipe: Recipe) -> tuple[ComputeMode, ...]:
    """All compute modes that the device has in hardware, the usual one first. Mixed precision only if the recipe allows
    it.
    """
    usual = usual_mode(network, device, recipe)
    layouts: list[MemoryLayout] = ["channels_last", "plain"] if _is_safe_channels_last(network, device) else ["plain"]
    precisions: list[Precision] = ["fp32"]
    if recipe.mixed_precision and (device.type == "cuda" or has_bf16()):
        precisions.append(_mixed(device))
    every = [
        ComputeMode(device=device.type, precision=each, layout=layout) for each in precisions for layout in layouts
    ]
    return (usual, *(mode for mode in every if mode != usual))


def device_of(name: str) -> torch.device:
    """The device of that name.

    Raises: UserError when there is no such device.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: expected 'cpu', 'cuda' or 'cuda:0', got '{name}'") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device: expected a device of this machine, got '{name}' but torch sees "
            f"{counted(torch.cuda.device_count(), 'GPU')}; use 'cpu', or see `nas doctor`"
        )
    return device


def _mixed(device: torch.device) -> Precision:
    # bfloat16 has float32's range and needs no loss scaling, but older GPUs only emulate it.
    return "bf16" if device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"


def _is_safe_channels_last(network: nn.Module, device: torch.device) -> bool:
    """Whether a training can use the channels-last layout without crashing.

    PyTorch 2.13's backward pass of a strided 1x1 convolution with fewer than 16 input channels, channels last on the
    CPU, ends the process with a segmentation fault (seen on AVX-512).
    """
    return device.type != "cpu" or not any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and layer.stride > (1, 1)
        and layer.in_channels < 16
        for layer in network.modules()
    )
