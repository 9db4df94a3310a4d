"""Comparison of a graph's outputs, logits or labels, with PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from nas.export.formats import Call

SAME_LABELS = 0.999  # least share of pixels with the same label, apart from ties
TIE_FP32 = 1e-4  # largest difference between two logits that counts as a tie, as a share of the range of logits


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Differences between a graph and PyTorch on one image."""

    max_abs_difference: float | None
    """Largest difference between logits; None for a graph that outputs labels."""
    same_labels: float
    """Share of pixels with the same label, counting ties as the same."""


def compare(logits: torch.Tensor, run: Call, image: torch.Tensor) -> Comparison:
    """Compare the output of `run` for `image` (1, 3, H, W) float32, labels or logits, with PyTorch's `logits`."""
    output = torch.from_numpy(run(image.contiguous().numpy()))
    if output.ndim == 3:
        return Comparison(max_abs_difference=None, same_labels=same_labels(logits, output))
    difference = float((output - logits).abs().max())
    return Comparison(max_abs_difference=difference, same_labels=same_labels(logits, output.argmax(1)))


def logits_of(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Logits (1, C, H, W) of `network` in evaluation mode; its own mode is restored."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits: torch.Tensor = network(image)
    finally:
        network.train(training)
    return logits


def same_labels(logits: torch.Tensor, labels: torch.Tensor, tie: float = TIE_FP32) -> float:
    """Share of pixels whose label in `labels` (N, H, W) is a best class of `logits` (N, C, H, W).

    A class is best if its logit is the largest, or less than the largest by at most the share `tie` of the range of all
    logits. Rounding decides between two such classes, and an untrained network has many.
    """
    if labels.shape != logits[:, 0].shape:
        return 0.0
    chosen = logits.gather(1, labels.long().unsqueeze(1)).squeeze(1)  # (N, H, W)
    margin = tie * float(logits.max() - logits.min())
    return float((chosen >= logits.amax(1) - margin).float().mean())
