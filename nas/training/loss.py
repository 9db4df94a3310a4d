"""What a training minimises."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import IGNORE
from nas.data.share import WHOLE, Share
from nas.training.together import mean_of


def class_weights(shares: Sequence[float], c: float) -> Tensor:
    """Weights (C,) of the classes, 1 / ln(c + p) for pixel shares p (ENet, arXiv 1606.02147, section 5.1).

    c bounds them: a class that never occurs weighs 1 / ln(c), one that is everywhere 1 / ln(c + 1).
    """
    return torch.tensor([1 / math.log(c + float(share)) for share in shares], dtype=torch.float32)


def segmentation_loss(
    logits: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    emphasis: Tensor | None = None,
    focus: float = 0.0,
    share: Share = WHOLE,
) -> Tensor:
    """Cross-entropy, averaged over the labelled pixels with the weight of each one's class.

    `logits` (N, C, H, W), any float type; `labels` (N, H, W) class ids or IGNORE; `weights` (C,). With an `emphasis`
    (N, H, W) each pixel counts so many times, and exp(focus (1 - p)) times that where its true class has probability p;
    the mean is over the pixels as they are.
    0 with gradient 0 when every pixel is void, where torch's own mean would be NaN. Where these are a `share` of a
    batch, the mean over the processes is that of the whole one.
    """
    known = labels != IGNORE
    mass = known if weights is None else weights[labels.masked_fill(~known, 0)] * known  # (N, H, W)
    if emphasis is None:
        total = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE, reduction="sum")
    else:
        each = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")  # (N, H, W)
        total = (mass * emphasis * torch.exp(focus * (1 - torch.exp(-each.detach()))) * each).sum()
    return total / mean_of(mass.sum(dtype=torch.float32), share).clamp(min=1e-12)


def labels_at(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (N, H, W) at (h, w): each is that of the pixel under its centre."""
    if tuple(labels.shape[-2:]) == size:
        return labels
    return F.interpolate(labels.unsqueeze(1).float(), size, mode="nearest-exact").squeeze(1).to(labels.dtype)


@torch.no_grad()
def hardest(logits: Tensor, labels: Tensor, probability: float, share: float) -> Tensor:
    """The labels (N, H, W) of the pixels whose true class has less than `probability` by `logits` (N, C, H, W), and of
    as many of the least probable ones that they are `share` of the labelled ones; IGNORE at all others.

    Online hard example mining (arXiv 1604.03540) as it is used for segmentation: over the whole batch. A GPU is not
    waited for.
    """
    void = labels == IGNORE
    of_true = logits.float().softmax(1).gather(1, labels.masked_fill(void, 0).unsqueeze(1)).squeeze(1)  # (N, H, W)
    of_true.masked_fill_(void, math.inf)
    hard = of_true < probability
    fewest = ((~void).sum().double() * share).ceil().long()
    if not labels.numel() or (labels.device.type == "cpu" and hard.sum() >= fewest):  # to ask a GPU is to wait for it
        return labels.masked_fill(~hard, IGNORE)
    least = of_true.flatten().topk(max(1, math.ceil(share * labels.numel())), largest=False).values
    bound = least.gather(0, (fewest - 1).clamp(min=0).view(1)).masked_fill(fewest == 0, -1)
    return labels.masked_fill(~(hard | (of_true <= bound)), IGNORE)


def total_loss(
    outputs: Sequence[Tensor],
    auxiliary_weights: Sequence[float],
    labels: Tensor,
    weights: Tensor | None = None,
    *,
    of_head: Callable[[Tensor, Tensor], Tensor] | None = None,
    emphasis: Tensor | None = None,
    focus: float = 0.0,
    share: Share = WHOLE,
) -> Tensor:
    """Loss of the main logits plus each auxiliary head's, times its weight.

    `outputs`: main logits first, then one per auxiliary head, each (N, C, H, W). `of_head`: gives the labels that teach
    a head, from its logits and all labels; without it all do. The rest: as in `segmentation_loss`.
    """

    def loss_of(logits: Tensor) -> Tensor:
        taught = labels if of_head is None else of_head(logits, labels)
        return segmentation_loss(logits, taught, weights, emphasis=emphasis, focus=focus, share=share)

    main, *auxiliary = outputs
    loss = loss_of(main)
    for logits, weight in zip(auxiliary, auxiliary_weights, strict=True):
        loss = loss + weight * loss_of(logits)
    return loss


def distillation_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, *, share: Share = WHOLE
) -> Tensor:
    """KL divergence of the student's class distribution from the teacher's, averaged over labelled pixels.

    Both logits (N, C, H, W) are divided by `temperature`; the result is multiplied by its square, which keeps
    the gradient's size (Hinton et al., arXiv 1503.02531). Void pixels, which include padding, teach nothing.
    `share`: as in `segmentation_loss`.
    """
    divergence = F.kl_div(
        F.log_softmax(student.float() / temperature, dim=1),
        F.log_softmax(teacher.float() / temperature, dim=1),
        log_target=True,
        reduction="none",
    ).sum(1)  # (N, H, W)
    known = labels != IGNORE
    return (divergence * known).sum() / mean_of(known.sum(), share).clamp(min=1) * temperature**2
