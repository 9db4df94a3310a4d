"""What pixels weigh by how near they are to where their class ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.data import IGNORE


@torch.no_grad()
def boundary_weights(labels: Tensor, distances: Sequence[float], weights: Sequence[float]) -> Tensor:
    """What each pixel of `labels` (N, H, W) weighs, float32 (N, H, W): the first of `weights` whose distance, one of as
    many that ascend, is above that from the pixel's centre to the nearest one of another class; the last one, which has
    none, for all others, and 0 for IGNORE. Void is another class, and what lies outside of a picture is none.
    """
    together = max(1, len(labels)) if labels.is_cuda else 1  # a CPU has one picture in its cache
    reach = math.ceil(distances[-1])
    squares = torch.cat([_squared_distances(each, reach) for each in torch.split(labels, together)])
    found = torch.full_like(squares, weights[-1], dtype=torch.float32)
    for distance, weight in reversed(list(zip(distances, weights, strict=False))):  # filled: a GPU is not waited for
        found.masked_fill_(squares < distance**2, weight)
    return found * (labels != IGNORE)


def _squared_distances(labels: Tensor, reach: int) -> Tensor:
    """The square of the distance of each pixel of `labels` (N, H, W) from the nearest one of another class, that of
    `reach` at most.

    Exact: the nearest one in the column of each pixel, then the nearest of what its row has found. A pixel of the row
    that is itself of another class has found more than the distance to it, so classes need not be told apart again.
    """
    kind = torch.int16 if reach <= 128 else torch.int32  # it holds the sum of two squares
    squares = _steps(labels, reach).to(kind).square_()
    found = torch.minimum(squares, _steps(labels.mT, reach).mT.to(kind).square_())
    for step in range(1, min(reach, labels.shape[-1])):
        for here, there in ((slice(step, None), slice(-step)), (slice(-step), slice(step, None))):
            near = found[..., here]
            torch.minimum(near, squares[..., there] + step * step, out=near)
    return found


def _steps(labels: Tensor, most: int) -> Tensor:
    """How many steps along its column each pixel of `labels` (N, H, W) is from one of another class, `most` at most."""
    height = labels.shape[1]
    place = torch.arange(height, dtype=torch.int32, device=labels.device).view(1, -1, 1)
    differs = labels[:, 1:] != labels[:, :-1]  # of each pixel but the first from the one above
    begins = torch.where(differs, place[:, 1:], -most)
    begins = torch.cat([begins.new_full((len(labels), 1, labels.shape[2]), -most), begins], 1).cummax(1).values
    ends = torch.where(differs, place[:, :-1], height + most)
    ends = torch.cat([ends, ends.new_full((len(labels), 1, labels.shape[2]), height + most)], 1)
    ends = ends.flip(1).cummin(1).values.flip(1)
    return (torch.minimum(place - begins, ends - place) + 1).clamp(max=most)
