"""Operations that are exported as equivalent ones, because runtimes are slow at them or exporters refuse them.

Adaptive average pooling becomes two matrix products, because the exporter refuses grids that do not divide the feature
map. Each axis is pooled separately, so pooling equals multiplying by one constant matrix per axis. Pooling the whole
map remains a global pooling, which keeps the layout that ONNX Runtime's convolutions use.

PReLU becomes `a x + (1 - a) relu(x)`. ONNX Runtime's own PRelu branches on the sign of every value and leaves the
layout of its convolutions: its time depends on the image, and a network with it takes up to twice as long. The sum has
no branches, and OpenVINO runs it as fast as its own PRelu.

Linear and cubic shrinking by an even factor, such as to a half or a quarter, becomes average pooling; other shrinking
becomes two matrix products. ONNX Runtime's own cubic Resize of an image takes up to a quarter of the latency of a
SwiftNet pyramid. A single pixel, such as the mean of a map, is enlarged by repeating it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.overrides import TorchFunctionMode


class Rewritten(TorchFunctionMode):
    """While this mode is active, adaptive average pooling, PReLU and resizing are computed in these other ways."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.adaptive_avg_pool2d:
            return _adaptive_average_pool(func, *args, **(kwargs or {}))
        if func is nn.functional.prelu:
            return _prelu(*args, **(kwargs or {}))
        if func is nn.functional.interpolate:
            return _interpolate(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _adaptive_average_pool(
    usual: Any, x: torch.Tensor, output_size: int | tuple[int | None, int | None]
) -> torch.Tensor:
    height, width = (int(length) for length in x.shape[-2:])
    grid = (output_size, output_size) if isinstance(output_size, int) else output_size
    if grid == (1, 1):
        pooled: torch.Tensor = usual(x, grid)
        return pooled
    rows = _pooling_matrix(height, grid[0] or height).to(x)  # (grid height, H)
    columns = _pooling_matrix(width, grid[1] or width).to(x)  # (grid width, W)
    return rows @ (x @ columns.t())


def _prelu(x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """PReLU of `x` (N, C, H, W) with `slopes` (C) or (1)."""
    slope = slopes.view(1, -1, 1, 1)
    return slope * x + (1 - slope) * x.relu()


def _interpolate(
    usual: Any,
    x: torch.Tensor,
    size: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    **others: Any,
) -> Any:
    """`torch.nn.functional.interpolate`, computed faster if it shrinks by linear or cubic interpolation or enlarges a
    single pixel.
    """
    before = tuple(int(length) for length in x.shape[-2:])
    fits = mode in ("bilinear", "bicubic") and isinstance(size, tuple) and not any(others.values())
    if fits and before == (1, 1):
        return x.expand(*x.shape[:-2], *size)
    if not fits or any(new > old for old, new in zip(before, size, strict=True)):
        return usual(x, size=size, mode=mode, align_corners=align_corners, **others)
    factors = {old / new for old, new in zip(before, size, strict=True)}
    factor = min(factors)
    if len(factors) == 1 and factor >= 2 and factor % 2 == 0 and not align_corners:
        return (_linearly_shrunk if mode == "bilinear" else _cubically_shrunk)(x, int(factor))
    rows, columns = (
        _interpolation_matrix(old, new, mode, bool(align_corners)) for old, new in zip(before, size, strict=True)
    )
    return rows.to(x) @ (x @ columns.to(x).t())


def _linearly_shrunk(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Shrink by an even `factor`: on each axis, a new pixel is the mean of the two middle ones of `factor` pixels."""
    first = factor // 2 - 1
    return nn.functional.avg_pool2d(x[..., first:, first:] if first else x, 2, stride=factor)


def _cubically_shrunk(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Shrink by an even `factor`: on each axis, a new pixel lies halfway between the two middle ones of `factor`
    pixels. It is 11/8 of their mean minus 3/8 of the mean of the four nearest pixels.
    """
    pool, first = nn.functional.avg_pool2d, factor // 2 - 2
    if first < 0:  # repeat the edges: padding would not be exported with constant lengths
        x = torch.cat([x[..., :1, :], x, x[..., -1:, :]], -2)
        x = torch.cat([x[..., :1], x, x[..., -1:]], -1)
    else:
        x = x[..., first:, first:]
    x = 1.375 * pool(x[..., 1:, :], (2, 1), (factor, 1)) - 0.375 * pool(x, (4, 1), (factor, 1))
    return 1.375 * pool(x[..., 1:], (1, 2), (1, factor)) - 0.375 * pool(x, (1, 4), (1, factor))


def _interpolation_matrix(length: int, new: int, mode: str, align_corners: bool) -> torch.Tensor:
    """Matrix (new, length) that interpolates along one axis, as PyTorch does without antialiasing."""
    if align_corners:
        place = np.arange(new) * ((length - 1) / max(new - 1, 1))
    else:
        place = (np.arange(new) + 0.5) * (length / new) - 0.5
    left = np.floor(place).astype(np.int64)
    matrix = np.zeros((new, length), dtype=np.float32)
    for step in (0, 1) if mode == "bilinear" else (-1, 0, 1, 2):
        distance = np.abs(place - (left + step))
        weights = 1 - distance if mode == "bilinear" else _cubic(distance)
        matrix[np.arange(new), np.clip(left + step, 0, length - 1)] += weights
    return torch.from_numpy(matrix)


def _cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of pixels at a distance of up to 2: the kernel of Keys (doi 10.1109/TASSP.1981.1163711)."""
    a = -0.75  # as in PyTorch
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)


def _pooling_matrix(length: int, cells: int) -> torch.Tensor:
    """Matrix (cells, length): cell i averages positions floor(i * length / cells) to ceil((i + 1) * length / cells)."""
    matrix = np.zeros((cells, length), dtype=np.float32)
    for cell in range(cells):
        first, last = cell * length // cells, -(-(cell + 1) * length // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return torch.from_numpy(matrix)
