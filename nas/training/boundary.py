"""Weights of pixels by their distance from the boundary of their class."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nas.data import IGNORE


@torch.no_grad()
def boundary_weights(labels: Tensor, distances: Sequence[float], weights: Sequence[float]) -> Tensor:
    """The weight of each pixel of `labels` (N, H, W), float32 (N, H, W).

    It is the first of `weights` whose entry of `distances`, which ascend, is above the distance of the pixel from the
    nearest one of another class, centre to centre. The last weight has no distance and is for all other pixels; IGNORE
    weighs 0. Void counts as another class; the area outside a picture does not.
    """
    together = max(1, len(labels)) if labels.is_cuda else 1  # one picture at a time fits into a CPU's cache
    reach = math.ceil(distances[-1])
    squares = torch.cat([_squared_distances(each, reach) for each in torch.split(labels, together)])
    found = torch.full_like(squares, weights[-1], dtype=torch.float32)
    for distance, weight in reversed(list(zip(distances, weights, strict=False))):  # filling does not wait for a GPU
        found.masked_fill_(squares < distance**2, weight)
    return found * (labels != IGNORE)


def _squared_distances(labels: Tensor, reach: int) -> Tensor:
    """The squared distance of each pixel of `labels` (N, H, W) from the nearest one of another class, at most that of
    `reach`.

    Exact: it takes the nearest one in each pixel's column, then the minimum over what the pixels of its row have found.
    A pixel of the row that is itself of another class adds more than the distance to it, which is known from the row
    already, so classes need not be compared again.
    """
    kind = torch.int16 if reach <= 128 else torch.int32  # holds the sum of two squares
    squares = _steps(labels, reach).to(kind).square_()
    found = torch.minimum(squares, _steps(labels.mT, reach).mT.to(kind).square_())
    for step in range(1, min(reach, labels.shape[-1])):
        for here, there in ((slice(step, None), slice(-step)), (slice(-step), slice(step, None))):
            near = found[..., here]
            torch.minimum(near, squares[..., there] + step * step, out=near)
    return found


def _steps(labels: Tensor, most: int) -> Tensor:
    """Steps along its column from each pixel of `labels` (N, H, W) to the nearest other class, at most `most`."""
    height = labels.shape[1]
    place = torch.arange(height, dtype=torch.int32, device=labels.device).view(1, -1, 1)
    differs = labels[:, 1:] != labels[:, :-1]  # each row but the first from the row above
    begins = torch.where(differs, place[:, 1:], -most)
    begins = torch.cat([begins.new_full((len(labels), 1, labels.shape[2]), -most), begins], 1).cummax(1).values
    ends = torch.where(differs, place[:, :-1], height + most)
    ends = torch.cat([ends, ends.new_full((len(labels), 1, labels.shape[2]), height + most)], 1)
    ends = ends.flip(1).cummin(1).values.flip(1)
    return (torch.minimum(place - begins, ends - place) + 1).clamp(max=most)
