"""The loss of a training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from nas.data import IGNORE
from nas.data.share import WHOLE, Share
from nas.training.together import mean_over_processes


def class_weights(shares: Sequence[float], c: float) -> Tensor:
    """Weights (C,) of the classes, 1 / ln(c + p) for pixel shares p (ENet, arXiv 1606.02147, section 5.1).

    c bounds the weights: a class that never occurs weighs 1 / ln(c), one that covers everything 1 / ln(c + 1).
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
    """Cross-entropy, averaged over the labelled pixels, each weighted by its class.

    `logits`: (N, C, H, W), any float type; `labels`: (N, H, W), class ids or IGNORE; `weights`: (C,). With an
    `emphasis` (N, H, W), the loss of each pixel is multiplied by its emphasis and by exp(focus (1 - p)), where p is the
    probability of its true class; the divisor of the average stays the same. `share`: with a share of a batch, the mean
    over all processes is the loss of the whole batch.

    The loss is 0, with gradient 0, if every pixel is void, where torch's own mean would be NaN.
    """
    known = labels != IGNORE
    mass = known if weights is None else weights[labels.masked_fill(~known, 0)] * known  # (N, H, W)
    if emphasis is None:
        total = F.cross_entropy(logits.float(), labels, weight=weights, ignore_index=IGNORE, reduction="sum")
    else:
        each = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")  # (N, H, W)
        total = (mass * emphasis * torch.exp(focus * (1 - torch.exp(-each.detach()))) * each).sum()
    return total / mean_over_processes(mass.sum(dtype=torch.float32), share).clamp(min=1e-12)


def labels_at(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels (N, H, W) resized to (h, w): each pixel takes the label under its centre."""
    if tuple(labels.shape[-2:]) == size:
        return labels
    return F.interpolate(labels.unsqueeze(1).float(), size, mode="nearest-exact").squeeze(1).to(labels.dtype)


@torch.no_grad()
def hardest(logits: Tensor, labels: Tensor, probability: float, share: float) -> Tensor:
    """The labels (N, H, W) of hard pixels; IGNORE at all others.

    A pixel is hard if its true class has a probability below `probability` by `logits` (N, C, H, W). If these are fewer
    than a `share` of the labelled pixels, the least probable ones make up that share. This is online hard example
    mining (arXiv 1604.03540) as used for segmentation: over the whole batch. It does not wait for a GPU.
    """
    void = labels == IGNORE
    of_true = logits.float().softmax(1).gather(1, labels.masked_fill(void, 0).unsqueeze(1)).squeeze(1)  # (N, H, W)
    of_true.masked_fill_(void, math.inf)
    hard = of_true < probability
    fewest = ((~void).sum().double() * share).ceil().long()
    if not labels.numel() or (labels.device.type == "cpu" and hard.sum() >= fewest):  # on a GPU, asking would wait
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
    """Loss of the main logits plus that of each auxiliary head times its weight.

    `outputs`: main logits first, then one per auxiliary head, each (N, C, H, W). `of_head`: selects the labels that
    count for a head, from its logits and all labels; None: all of them. Other arguments are those of
    `segmentation_loss`.
    """

    def loss_of(logits: Tensor) -> Tensor:
        selected = labels if of_head is None else of_head(logits, labels)
        return segmentation_loss(logits, selected, weights, emphasis=emphasis, focus=focus, share=share)

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
    the size of the gradient (Hinton et al., arXiv 1503.02531). Void pixels, padding included, do not count.
    `share`: as in `segmentation_loss`.
    """
    divergence = F.kl_div(
        F.log_softmax(student.float() / temperature, dim=1),
        F.log_softmax(teacher.float() / temperature, dim=1),
        log_target=True,
        reduction="none",
    ).sum(1)  # (N, H, W)
    known = labels != IGNORE
    return (divergence * known).sum() / mean_over_processes(known.sum(), share).clamp(min=1) * temperature**2
