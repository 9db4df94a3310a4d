"""How much each channel matters, comparable between groups.

All scores are sums over everything that goes when the channel goes: the filters that produce it, the slices that
read it, its normalisation, its slopes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.surgery import Cutter
from space.channels import parametric
from space.errors import UserError
from space.network import Network

Scores = NDArray[np.float64]
Batch = tuple[Tensor, Tensor]


def magnitude(cutter: Cutter, network: Network) -> Scores:
    """Squared L2 norm of all weights of a channel, relative to its group's mean (groups differ in fan-in, not in
    worth).

    Needs no data. Returns one score per channel of the unpruned architecture.
    """
    scores = _collect(cutter, network, lambda parameter: parameter.detach() ** 2)
    for name in cutter.map.names:
        members = cutter.map.members(name)
        present = members[cutter.everything[members]]
        scores[present] /= max(scores[present].mean(), 1e-30)
    return scores


def taylor(
    cutter: Cutter,
    network: Network,
    batches: Iterable[Batch],
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Scores:
    """First-order estimate of how much the loss changes without a channel: the squared sum of weight times gradient,
    averaged over batches (Molchanov 2019, eq. 8, over whole groups).

    `batches` give (images, labels) on the network's device. Returns one score per channel of the unpruned
    architecture; the network's weights and statistics are left as they were.

    Raises: UserError when the loss is not finite.
    """
    was_training = network.training
    network.eval()  # statistics stay, and dropout is off
    total, count = np.zeros(len(cutter.everything)), 0
    for images, labels in batches:
        network.zero_grad(set_to_none=True)
        value = loss(network(images), labels)
        if not bool(torch.isfinite(value)):
            raise UserError(
                f"expected a finite loss to score channels by, got {float(value.detach())} on batch {count}; "
                "check the network's weights and that the batch has labels that are not void"
            )
        torch.autograd.backward(value)
        total += _collect(cutter, network, _weight_times_gradient) ** 2
        count += 1
    network.zero_grad(set_to_none=True)
    network.train(was_training)
    assert count, "importance needs at least one batch"
    return total / count


def _weight_times_gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        return torch.zeros_like(parameter)
    return parameter.detach() * parameter.grad


def _collect(cutter: Cutter, network: Network, value: Callable[[nn.Parameter], Tensor]) -> Scores:
    """Sum of `value` over all parameters of each channel."""
    scores = np.zeros(len(cutter.everything))
    for node in parametric(cutter.graph):
        layer = network.layer(node.name)
        outputs = cutter.positions(node)
        for parameter in layer.parameters():
            amount = value(parameter).double()
            if amount.dim() == 1 or node.depthwise:
                np.add.at(scores, outputs, amount.reshape(len(outputs), -1).sum(dim=1).cpu().numpy())
                continue
            if node.kind == "deconv":
                amount = amount.transpose(0, 1)
            filters = amount.flatten(2).sum(dim=2).cpu().numpy()  # (out, in)
            inputs = cutter.read_positions(node)
            np.add.at(scores, outputs, filters.sum(axis=1))
            np.add.at(scores, inputs, filters.sum(axis=0))
            # Where a layer reads and gives the same channel (residual streams), its own weight was counted twice.
            both = np.nonzero(outputs[:, None] == inputs[None, :])
            np.subtract.at(scores, outputs[both[0]], filters[both])
    return scores
