"""Arithmetic shared by importances: values and derivatives of weights, summed over the slices of each channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from pruning.importance import Batch, ChannelScores, LossFunction
from pruning.surgery import Cutter
from space.channels import parametric
from space.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from space.network import Network


def mean(terms: Iterable[ChannelScores]) -> ChannelScores:
    """The mean of at least one term."""
    total, count = np.zeros(1), 0
    for term in terms:
        total, count = total + term, count + 1
    assert count, "importance needs at least one batch"
    return total / count


def gate_derivatives(
    cutter: Cutter, network: Network, batches: Iterable[Batch], loss: LossFunction
) -> Iterator[ChannelScores]:
    """For each batch, the derivative of its loss with respect to a gate on each channel.

    A gate is a factor on everything that reads the channel: a channel is cut when nothing reads it any more. The
    derivative with respect to it is the sum of weight times gradient over the slices that read the channel. The network
    is not changed.

    Raises: UserError when the loss is not finite.
    """
    import torch

    was_training, gradients = network.training, [parameter.grad for parameter in network.parameters()]
    network.eval()  # keep running statistics, no dropout
    try:
        for number, (images, labels) in enumerate(batches):
            network.zero_grad(set_to_none=True)
            value = loss(network(images), labels)
            if not bool(torch.isfinite(value)):
                raise UserError(
                    f"expected a finite loss to score channels by, got {float(value.detach())} on batch {number}; "
                    "check the network's weights and that the batch has labels that are not void"
                )
            torch.autograd.backward(value)
            yield _read_weight_times_gradient(cutter, network)
    finally:
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter.grad = gradient
        network.train(was_training)


def sum_over_parameters(cutter: Cutter, network: Network, amount_of: Callable[[nn.Parameter], Tensor]) -> ChannelScores:
    """Per channel, the sum of `amount_of` over all weights that are cut with the channel: its filters, the slices that
    read it, its scales and slopes. `amount_of` maps a parameter to a tensor of its shape.
    """
    scores = np.zeros(len(cutter.everything))
    for node in parametric(cutter.graph):
        outputs = cutter.positions(node)
        for parameter in network.layer(node.name).parameters():
            amount = amount_of(parameter).double()
            if amount.dim() == 1 or node.group_width:
                np.add.at(scores, outputs, amount.reshape(len(outputs), -1).sum(dim=1).cpu().numpy())
                continue
            if node.kind == "deconv":
                amount = amount.transpose(0, 1)
            filters = amount.flatten(2).sum(dim=2).cpu().numpy()  # (out, in)
            inputs = cutter.read_positions(node)
            np.add.at(scores, outputs, filters.sum(axis=1))
            np.add.at(scores, inputs, filters.sum(axis=0))
            # A layer that reads and produces the same channel (residual streams) has counted a weight twice.
            both = np.nonzero(outputs[:, None] == inputs[None, :])
            np.subtract.at(scores, outputs[both[0]], filters[both])
    return scores


def _read_weight_times_gradient(cutter: Cutter, network: Network) -> ChannelScores:
    """Sum of weight times gradient over the slices that read each channel."""
    sums = np.zeros(len(cutter.everything))
    for node in parametric(cutter.graph):
        if node.kind not in ("conv", "deconv") or node.group_width:
            continue
        weight = network.layer(node.name).get_parameter("weight")
        if weight.grad is None:  # no output depends on the layer
            continue
        reads = 0 if node.kind == "deconv" else 1
        amounts = (weight.detach() * weight.grad).double().transpose(0, reads).flatten(1).sum(dim=1)
        np.add.at(sums, cutter.read_positions(node), amounts.cpu().numpy())
    return sums
