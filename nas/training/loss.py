"""What a training minimises."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import IGNORE


def class_weights(shares: Sequence[float], c: float) -> Tensor:
    """Weights (C,) of the classes, 1 / ln(c + p) for pixel shares p (ENet, arXiv 1606.02147, section 5.1).

    c bounds them: a class that never occurs weighs 1 / ln(c), one that is everywhere 1 / ln(c + 1).
    """
    return torch.tensor([1 / math.log(c + float(share)) for share in shares], dtype=torch.float32)


def segmentation_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy, averaged over the labelled pixels with the weight of each one's class.

    `logits` (N, C, H, W), any float type; `labels` (N, H, W) class ids or IGNORE; `weights` (C,).
    0 with gradient 0 when every pixel is void, where torch's own mean would be NaN.
    """
    total = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE, reduction="sum")
    known = labels != IGNORE
    mass = known if weights is None else weights[labels.masked_fill(~known, 0)] * known  # (N, H, W)
    return total / mass.sum(dtype=torch.float32).clamp(min=1e-12)


def total_loss(
    outputs: Sequence[Tensor],
    auxiliary_weights: Sequence[float],
    labels: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """Loss of the main logits plus each auxiliary head's, times its weight.

    `outputs`: main logits first, then one per auxiliary head, each (N, C, H, W).
    """
    main, *auxiliary = outputs
    loss = segmentation_loss(main, labels, weights)
    for logits, weight in zip(auxiliary, auxiliary_weights, strict=True):
        loss = loss + weight * segmentation_loss(logits, labels, weights)
    return loss


def distillation_loss(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """KL divergence of the student's class distribution from the teacher's, averaged over labelled pixels.

    Both logits (N, C, H, W) are divided by `temperature`; the result is multiplied by its square, which keeps
    the gradient's size (Hinton et al., arXiv 1503.02531). Void pixels, which include padding, teach nothing.
    """
    divergence = F.kl_div(
        F.log_softmax(student.float() / temperature, dim=1),
        F.log_softmax(teacher.float() / temperature, dim=1),
        log_target=True,
        reduction="none",
    ).sum(1)  # (N, H, W)
    known = labels != IGNORE
    return (divergence * known).sum() / known.sum().clamp(min=1) * temperature**2
