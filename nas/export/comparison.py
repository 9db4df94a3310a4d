"""A graph's answers beside PyTorch's: logits, and the labels that they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from nas.export.formats import Call

SAME_LABELS = 0.999  # least share of pixels with the same label, beyond floating-point ties
TIE_FP32 = 1e-4  # classes whose logits differ by less than this share of the logits' range are a tie


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How far a graph is from PyTorch on one image."""

    max_abs_difference: float | None
    """Largest difference of logits; None for a graph of labels."""
    same_labels: float
    """Share of pixels with the same label, ties at floating-point level counted as the same."""


def compare(logits: torch.Tensor, run: Call, image: torch.Tensor) -> Comparison:
    """How well what `run` gives for `image` (1, 3, H, W) float32, labels or logits, agrees with PyTorch's `logits`."""
    output = torch.from_numpy(run(image.contiguous().numpy()))
    if output.ndim == 3:
        return Comparison(max_abs_difference=None, same_labels=same_labels(logits, output))
    difference = float((output - logits).abs().max())
    return Comparison(max_abs_difference=difference, same_labels=same_labels(logits, output.argmax(1)))


def logits_of(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Logits (1, C, H, W) of `network` in evaluation mode; its mode is left as it came."""
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

    A class is best when its logit is the largest or below it by at most `tie` of the whole range of logits: which of
    two such classes wins is rounding, and an untrained network has many.
    """
    if labels.shape != logits[:, 0].shape:
        return 0.0
    chosen = logits.gather(1, labels.long().unsqueeze(1)).squeeze(1)  # (N, H, W)
    margin = tie * float(logits.max() - logits.min())
    return float((chosen >= logits.amax(1) - margin).float().mean())
