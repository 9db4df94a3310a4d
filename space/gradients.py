"""Gradients that PyTorch computes slowly on a CPU, by other operations: the values are the same bits, the gradients the
same sums in another order. Where weights lie and what they are called does not change.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

FEWEST_TIMES = 4  # that a map is enlarged, for the products to be fewer
MOST_CHANNELS = 32  # of more, PyTorch does several at a time


def resized(x: Tensor, size: tuple[int, int], align_corners: bool, *, training: bool) -> Tensor:
    """`x` (N, C, h, w) at `size` (H, W), bilinear."""
    if training and _needs_cpu_float32_gradient(x) and x.shape[1] <= MOST_CHANNELS and _times(x, size) >= FEWEST_TIMES:
        enlarged: Tensor = _Resized.apply(x, size, align_corners)  # type: ignore[no-untyped-call]
        return enlarged
    return functional.interpolate(x, size, mode="bilinear", align_corners=align_corners)


def with_quick_gradient(layer: nn.Conv2d) -> nn.Conv2d:
    """A depthwise convolution, dilated along its width, of stride 1, whose output is as large as its input."""
    # A class of its own would no longer be the layer that others look for, and called otherwise it would miss hooks.
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
    """Whether a gradient is wanted, in float32 on a CPU."""
    return (
        x.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def _times(x: Tensor, size: tuple[int, int]) -> float:
    """How often it is enlarged along each axis, at least."""
    return min(size[0] / x.shape[-2], size[1] / x.shape[-1])


class _Resized(torch.autograd.Function):
    """Its gradient is two products: resizing is one along each axis."""

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
    """Its gradient is taken where it is not dilated: a dilation of 2 by 2 convolves four maps, of every other pixel of
    every other row, each on its own.
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
    """The maps (times * N, C, h, w) of every so many rows and columns of `x` (N, C, H, W), with zeros at its ends."""
    count, channels, height, width = x.shape
    down, right = -height % times[0], -width % times[1]
    padded = functional.pad(x.permute(0, 2, 3, 1), (0, 0, 0, right, 0, down))
    h, w = (height + down) // times[0], (width + right) // times[1]
    maps = padded.reshape(count, h, times[0], w, times[1], channels).permute(0, 2, 4, 1, 3, 5)
    return maps.reshape(-1, h, w, channels).permute(0, 3, 1, 2)


def _together(maps: Tensor, shape: torch.Size, times: tuple[int, int]) -> Tensor:
    """What `_apart` took apart, without the zeros."""
    count, channels, height, width = shape
    h, w = maps.shape[-2:]
    apart = maps.permute(0, 2, 3, 1).reshape(count, *times, h, w, channels)
    whole = apart.permute(0, 3, 1, 4, 2, 5).reshape(count, h * times[0], w * times[1], channels)
    return whole[:, :height, :width].permute(0, 3, 1, 2)
