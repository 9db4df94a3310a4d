"""Faster CPU gradients for two operations whose backward pass is slow in PyTorch.

Outputs are identical bit by bit; gradients are the same sums in another order. The names and the layout of weights do
not change.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

FEWEST_TIMES = 4  # upsampling factor from which the matrix products are cheaper
MOST_CHANNELS = 32  # with more channels, PyTorch's backward pass processes several at a time


def resized(x: Tensor, size: tuple[int, int], align_corners: bool, *, training: bool) -> Tensor:
    """`x` (N, C, h, w) resized to `size` (H, W), bilinear."""
    if training and _needs_cpu_float32_gradient(x) and x.shape[1] <= MOST_CHANNELS and _times(x, size) >= FEWEST_TIMES:
        enlarged: Tensor = _Resized.apply(x, size, align_corners)  # type: ignore[no-untyped-call]
        return enlarged
    return functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def with_quick_gradient(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer itself, now with a faster gradient. It must be a depthwise convolution of stride 1, dilated along its
    width, with an output as large as its input.
    """
    # A class of its own would not be the layer that other code looks for, and a function in its place would skip hooks.
    dilation = (layer.dilation[0], layer.dilation[1])
    layer._conv_forward = functools.partial(_convolved, dilation)  # type: ignore[method-assign]
    return layer


def _convolved(dilation: tuple[int, int], x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if _needs_cpu_float32_gradient(x) and x.is_contiguous(memory_format=torch.channels_last):
        convolved: Tensor = _Dilated.apply(x, weight, bias, dilation)  # type: ignore[no-untyped-call]
        return convolved
    return _depthwise(x, weight, bias, dilation)


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: tuple[int, int]) -> Tensor:
    padding = [side // 2 * times for side, times in zip(weight.shape[2:], dilation, strict=True)]
    return functional.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=len(weight))


def _needs_cpu_float32_gradient(x: Tensor) -> bool:
    """Whether `x` needs a gradient, in float32 on a CPU, without autocast."""
    return (
        x.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _times(x: Tensor, size: tuple[int, int]) -> float:
    """The smaller of the upsampling factors along the two axes."""
    return min(size[0] / x.shape[-2], size[1] / x.shape[-1])


class _Resized(torch.autograd.Function):
    """Bilinear resizing. It is a matrix product along each axis, and so is its gradient."""

    @staticmethod
    def forward(context: Any, x: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
        context.of, context.align_corners = x.shape[-2:], align_corners
        return functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        rows, columns = (
            functional.interpolate(torch.eye(n)[None], int(m), mode="linear", align_corners=context.align_corners)[0]
            for n, m in zip(context.of, gradient.shape[-2:], strict=True)
        )  # (h, H), (w, W)
        return rows @ (gradient @ columns.T), None, None


class _Dilated(torch.autograd.Function):
    """Dilated depthwise convolution, with the gradient of undilated ones: a dilation of 2 by 2 is four independent
    convolutions, each over every other pixel of every other row.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor | None, dilation: tuple[int, int]) -> Tensor:
        context.save_for_backward(x, weight)
        context.dilation = dilation
        context.has_bias = bias is not None
        return _depthwise(x, weight, bias, dilation)

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = context.saved_tensors
        wanted = [*context.needs_input_grad[:2], context.has_bias and context.needs_input_grad[2]]
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            _apart(gradient, context.dilation),
            _apart(x, context.dilation),
            weight,
            [len(weight)],
            [1, 1],
            [side // 2 for side in weight.shape[2:]],
            [1, 1],
            False,
            [0, 0],
            len(weight),
            wanted,
        )
        return None if of_x is None else _together(of_x, x.shape, context.dilation), of_weight, of_bias, None


def _apart(x: Tensor, times: tuple[int, int]) -> Tensor:
    """`x` (N, C, H, W) split into the maps (times * N, C, h, w) of every `times`-th row and column, zero-padded."""
    count, channels, height, width = x.shape
    down, right = -height % times[0], -width % times[1]
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 0, right, 0, down))
    h, w = (height + down) // times[0], (width + right) // times[1]
    maps = padded.reshape(count, h, times[0], w, times[1], channels).permute(0, 2, 4, 1, 3, 5)
    return maps.reshape(-1, h, w, channels).permute(0, 3, 1, 2)


def _together(maps: Tensor, shape: torch.Size, times: tuple[int, int]) -> Tensor:
    """The inverse of `_apart`, without the padding."""
    count, channels, height, width = shape
    h, w = maps.shape[-2:]
    apart = maps.permute(0, 2, 3, 1).reshape(count, *times, h, w, channels)
    whole = apart.permute(0, 3, 1, 4, 2, 5).reshape(count, h * times[0], w * times[1], channels)
    return whole[:, :height, :width].permute(0, 3, 1, 2)
