"""The exponential moving average of a network over the steps of its training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

MOST_RECENT = 10  # steps: step t of a training decays by (1 + t) / (10 + t) at most


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """The average of `network`, its weights and its batch-norm statistics; `update_parameters(network)` after a step.

    The network itself is `.module`, which computes in the mode that `network` was in.
    """

    @torch.no_grad()
    def mean(averages: Sequence[Tensor], latest: Sequence[Tensor], steps: Tensor | int) -> None:
        share = min(decay, (1 + int(steps)) / (MOST_RECENT + int(steps)))
        for average, current in zip(averages, latest, strict=True):
            if average.is_floating_point():
                average.lerp_(current, 1 - share)
            else:  # how many batches a batch norm has seen
                average.copy_(current)

    return AveragedModel(network, multi_avg_fn=mean, use_buffers=True)
