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
    def mean(averages: Sequence[Tensor], latest: Sequence[Tensor], _: Tensor | int) -> None:
        steps = int(average.n_averaged)  # on the CPU: what is passed on is on the device, and would be waited for
        share = min(decay, (1 + steps) / (MOST_RECENT + steps))
        if averages[0].is_floating_point():  # it is asked for tensors of each type by themselves
            torch._foreach_lerp_(list(averages), list(latest), 1 - share)
        else:  # how many batches a batch norm has seen
            torch._foreach_copy_(list(averages), list(latest))

    average = AveragedModel(network, multi_avg_fn=mean, use_buffers=True)  # named, because `mean` counts its steps
    return average
