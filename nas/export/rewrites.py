"""Operations that are exported as others which give the same, since runtimes are slow at them or refuse them.

Adaptive average pooling is two matrix products: the exporter refuses grids that do not divide the feature map. Each
axis is pooled alone, so pooling equals a product with one constant matrix per axis. Of the whole map it stays a global
pooling, which keeps the layout that ONNX Runtime's convolutions use.

PReLU is `a x + (1 - a) relu(x)`. ONNX Runtime's own PRelu branches on the sign of every value and leaves the layout
its convolutions use: its time depends on the image, and a network with it takes up to twice as long. The sum has no
branches, and OpenVINO is as fast with it as with its own.

Bilinear shrinking to a half or a quarter is average pooling, to anything else two matrix products. ONNX Runtime's
own Resize of an image takes 20 times as long: a quarter of the latency of a SwiftNet pyramid. A single pixel, such as
the mean of a map, becomes as large as what it joins by being repeated.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode


class Rewritten(TorchFunctionMode):
    """While it is active, adaptive average pooling, PReLU and bilinear resizing are computed in those other ways."""

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
    """`slopes` (C) or (1), for `x` (N, C, H, W)."""
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
    """`torch.nn.functional.interpolate`, written as something faster where it shrinks by linear interpolation, or has
    one pixel to interpolate from.
    """
    before = tuple(int(length) for length in x.shape[-2:])
    fits = mode == "bilinear" and isinstance(size, tuple) and not any(others.values())
    if fits and before == (1, 1):
        return x.expand(*x.shape[:-2], *size)
    if not fits or any(new > old for old, new in zip(before, size, strict=True)):
        return usual(x, size=size, mode=mode, align_corners=align_corners, **others)
    factors = {old / new for old, new in zip(before, size, strict=True)}
    factor = min(factors)
    if len(factors) == 1 and factor >= 2 and factor % 2 == 0 and not align_corners:
        # Every new pixel is the mean of the two middle ones of `factor`, on each axis.
        first = int(factor) // 2 - 1
        return nn.functional.avg_pool2d(x[..., first:, first:] if first else x, 2, stride=int(factor))
    rows, columns = (
        _interpolation_matrix(old, new, bool(align_corners)) for old, new in zip(before, size, strict=True)
    )
    return rows.to(x) @ (x @ columns.to(x).t())


def _interpolation_matrix(length: int, new: int, align_corners: bool) -> torch.Tensor:
    """(new, length): linear interpolation along one axis, as PyTorch does it without antialiasing."""
    if align_corners:
        place = np.arange(new) * ((length - 1) / max(new - 1, 1))
    else:
        place = np.maximum((np.arange(new) + 0.5) * (length / new) - 0.5, 0)
    left = np.minimum(place.astype(np.int64), length - 1)
    share = place - left
    matrix = np.zeros((new, length), dtype=np.float32)
    matrix[np.arange(new), left] += 1 - share
    matrix[np.arange(new), np.minimum(left + 1, length - 1)] += share
    return torch.from_numpy(matrix)


def _pooling_matrix(length: int, cells: int) -> torch.Tensor:
    """Cell i averages positions floor(i * length / cells) up to ceil((i + 1) * length / cells), as PyTorch does."""
    matrix = np.zeros((cells, length), dtype=np.float32)
    for cell in range(cells):
        first, last = cell * length // cells, -(-(cell + 1) * length // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return torch.from_numpy(matrix)
