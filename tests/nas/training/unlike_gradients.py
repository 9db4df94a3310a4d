"""A program: two processes, of which one has no gradient for a parameter, average their gradients."""

from __future__ import annotations

import torch
from torch import nn

from nas.data.share import Share
from nas.runs.processes import work_together
from nas.training.together import average_gradients


def average(share: Share) -> None:
    parameters = [nn.Parameter(torch.ones(2)) for _ in range(2)]
    loss = torch.stack([each.sum() for each in parameters[: 2 - share.rank]]).sum()
    loss.backward()
    average_gradients(parameters, loss.detach(), share)


if __name__ == "__main__":
    torch.set_num_threads(1)
    work_together(average, 2, on_gpus=False)
