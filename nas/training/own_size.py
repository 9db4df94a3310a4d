"""Predictions for pictures at their own size, as benchmarks score them: whole or by windows, mirrored, scaled.

Logits are resized to the picture's size (bilinear, corners not aligned) before the arg-max: labels enlarged by nearest
would have steps along every edge, and networks are to be compared by what they know, not by how their labels are
enlarged. A single look gives logits. Several looks (mirrored, scales) are averaged as probabilities, so that each
counts the same; the windows of one look are averaged as logits where they overlap.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from nas.data import Dataset, SplitName, read_image, read_label
from nas.training.batch_loop import Count, Guard, guarded_on, uncounted
from nas.training.exact import in_float32
from nas.training.metrics import ConfusionMatrix, require_finite_logits
from nas.training.prediction import network_input
from space.errors import UserError

LARGEST_SCALE = 8.0
MOST_SCALES = 16
SMALLEST_WINDOW = 16  # pixels
STRIDE = 2 / 3  # largest distance between windows, as a share of their side

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class View:
    """How a network looks at a picture.

    Raises: UserError for numbers out of range.
    """

    size: tuple[int, int]
    """Height and width in pixels that a picture is resized to (bilinear, antialiased) at a scale of 1."""
    scales: tuple[float, ...] = (1.0,)
    """Multiples of `size` at which the network looks at the picture."""
    flip: bool = False
    """Whether it looks at the mirrored picture as well."""
    window: tuple[int, int] | None = None
    """Height and width in pixels of windows, which overlap by a third or more; None: the picture as a whole."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.scales) <= MOST_SCALES or len(set(self.scales)) < len(self.scales):
            raise UserError(f"scales: expected 1 to {MOST_SCALES} different scales, got {_listed(self.scales)}")
        for scale in self.scales:
            if not 1 / LARGEST_SCALE <= scale <= LARGEST_SCALE:
                raise UserError(f"scales: expected {1 / LARGEST_SCALE:g} to {LARGEST_SCALE:g}, got {scale:g}")
        if self.window is not None and min(self.window) < SMALLEST_WINDOW:
            raise UserError(
                f"window: expected height and width of at least {SMALLEST_WINDOW} pixels, got {self.window}"
            )

    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Height and width of the picture at each scale."""
        height, width = self.size
        return tuple((max(1, round(height * scale)), max(1, round(width * scale))) for scale in self.scales)

    def largest(self) -> tuple[int, int]:
        """The largest height and width that the network is run on."""
        height, width = (max(sides) for sides in zip(*self.sizes(), strict=True))
        return (height, width) if self.window is None else (min(height, self.window[0]), min(width, self.window[1]))

    def words(self) -> str:
        """A description for people."""
        height, width = self.size
        words = [f"pictures at {height}x{width}"]
        if self.scales != (1.0,):
            words.append(f"times {_listed(self.scales)}")
        words.append("whole" if self.window is None else f"by windows of {self.window[0]}x{self.window[1]}")
        if self.window is not None and self.largest() == tuple(max(sides) for sides in zip(*self.sizes(), strict=True)):
            words[-1] = f"whole, since windows of {self.window[0]}x{self.window[1]} are no smaller"
        words += ["mirrored too"] if self.flip else []
        return ", ".join(words)


def label_at_own_size(network: nn.Module, image: Pixels, view: View) -> Pixels:
    """Classes, uint8 (H, W), of a picture, uint8 (H, W, 3) of any size; the network is put into evaluation mode.

    Raises: TrainingError when a logit is not finite.
    """
    network.eval()
    with torch.inference_mode(), in_float32():
        scores = class_scores(network, image, view)
        require_finite_logits(scores)
        return scores.max(0).indices.to(torch.uint8).cpu().numpy()


def confusion_at_own_size(
    network: nn.Module,
    dataset: Dataset,
    split: SplitName,
    view: View,
    *,
    device: str | torch.device = "cpu",
    threads: int = 1,
    guard: Guard = nullcontext,
    count: Count = uncounted,
) -> ConfusionMatrix:
    """The confusion matrix of a split's labels and the predictions of `network` in float32, pictures at their own size.

    The network is moved to `device` and its mode is kept. `threads` pictures are decoded at a time. `guard()` is held
    while a picture is read and scored; then `count` is called with 1.

    Raises: DataError when a file cannot be read.
    """
    matrix = ConfusionMatrix(dataset.num_classes)
    network = network.to(device)
    training = network.training
    network.eval()
    try:
        pictures = guarded_on(torch.device(device), _read(dataset, split, threads), guard)
        with torch.inference_mode(), in_float32(), closing(pictures) as steps:
            for image, label in steps:
                scores = class_scores(network, image, view)
                matrix.look(scores)
                matrix.update(scores.max(0).indices, torch.from_numpy(label).to(device))
                count(1)
    finally:
        network.train(training)
    return matrix


def class_scores(network: nn.Module, image: Pixels, view: View) -> Tensor:
    """Scores of the classes, float32 (C, H, W), in a picture, uint8 (H, W, 3): logits, or mean probabilities if the
    network looks several times. The network has to be in evaluation mode.
    """
    device = next(network.parameters()).device
    size = (image.shape[0], image.shape[1])
    looks = len(view.scales) * (2 if view.flip else 1)
    scores: Tensor | None = None
    for scaled, mirrored in itertools.product(view.sizes(), (False, True) if view.flip else (False,)):
        seen = torch.from_numpy(network_input(image, scaled)).to(device)  # (1, 3, h, w)
        logits = _logits(network, seen.flip(-1) if mirrored else seen, view.window)
        logits = F.interpolate(logits.flip(-1) if mirrored else logits, size, mode="bilinear", align_corners=False)[0]
        if looks == 1:
            return logits
        share = logits.softmax(0).div_(looks)
        scores = share if scores is None else scores.add_(share)
    assert scores is not None, "there is at least one scale"
    return scores


def window_starts(length: int, window: int) -> list[int]:
    """Starts of windows along one axis: evenly spaced, except the last window, which ends where the picture does."""
    if window >= length:
        return [0]
    stride = max(1, int(window * STRIDE))
    return [*range(0, length - window, stride), length - window]


def _logits(network: nn.Module, seen: Tensor, window: tuple[int, int] | None) -> Tensor:
    """Logits (1, C, h, w) of a picture (1, 3, h, w), whole or by windows; overlapping windows are averaged."""
    height, width = int(seen.shape[-2]), int(seen.shape[-1])
    if window is None:
        return _sized(network(seen), (height, width))
    total: Tensor | None = None
    count = torch.zeros(1, 1, height, width, device=seen.device)
    tall, wide = min(window[0], height), min(window[1], width)
    for top, left in itertools.product(window_starts(height, tall), window_starts(width, wide)):
        place = (..., slice(top, top + tall), slice(left, left + wide))
        logits = _sized(network(seen[place]), (tall, wide))
        if total is None:
            total = logits.new_zeros(1, logits.shape[1], height, width)
        total[place] += logits
        count[place] += 1
    assert total is not None, "there is at least one window"
    return total / count


def _sized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(logits.shape[-2:]) == size:
        return logits
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def _read(dataset: Dataset, split: SplitName, threads: int) -> Iterator[tuple[Pixels, Pixels]]:
    """Pictures (H, W, 3) and their classes (H, W); `threads` of them are decoded at a time."""
    files = list(zip(dataset.split(split).images, dataset.split(split).labels, strict=True))

    def one(pair: tuple[Path, Path]) -> tuple[Pixels, Pixels]:
        return read_image(pair[0], None), read_label(dataset, pair[1], None)

    with ThreadPoolExecutor(max_workers=threads) as pool:
        for start in range(0, len(files), threads):
            yield from list(pool.map(one, files[start : start + threads]))  # none is decoded between two steps


def _listed(numbers: tuple[float, ...]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
