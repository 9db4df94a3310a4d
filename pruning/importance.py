"""How much each channel matters: four scores, each comparable between groups.

Magnitude and batch-norm scale look at the weights. Taylor and Fisher look at what the loss would do: a channel that
goes is one that nothing reads any more, so its gate is on everything that reads it, and the derivative by the gate is
the sum of weight times gradient over the slices that read the channel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

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
Loss = Callable[[Tensor, Tensor], Tensor]


def magnitude(cutter: Cutter, network: Network) -> Scores:
    """Squared L2 norm of all weights of a channel, those that produce it and those that read it, relative to its
    group's mean (groups differ in fan-in, not in worth).

    Needs no data. Returns one score per channel of the unpruned architecture.
    """
    scores = sum_over_parameters(cutter, network, lambda parameter: parameter.detach() ** 2)
    for name in cutter.map.names:
        members = cutter.map.members(name)
        present = members[cutter.everything[members]]
        scores[present] /= max(scores[present].mean(), 1e-30)
    return scores


def batch_norm_scale(cutter: Cutter, network: Network) -> Scores:
    """Absolute scale of a channel's batch norms, averaged over them (network slimming, Liu 2017).

    Channels that no batch norm scales get their relative magnitude, times the mean scale of all others. Needs no data.
    Returns one score per channel of the unpruned architecture.
    """
    total, norms = np.zeros(len(cutter.everything)), np.zeros(len(cutter.everything))
    for node in parametric(cutter.graph):
        if node.kind == "norm":
            scale = network.layer(node.name).weight
            assert isinstance(scale, Tensor)
            np.add.at(total, cutter.positions(node), scale.detach().double().abs().cpu().numpy())
            np.add.at(norms, cutter.positions(node), 1)
    scaled = norms > 0
    mean = float((total[scaled] / norms[scaled]).mean()) if scaled.any() else 1.0
    return np.where(scaled, total / np.maximum(norms, 1), mean * magnitude(cutter, network))


def taylor(cutter: Cutter, network: Network, batches: Iterable[Batch], loss: Loss) -> Scores:
    """First-order estimate of how much the loss changes without a channel: the absolute derivative by its gate,
    averaged over batches (Molchanov 2017, eq. 2; over everything that reads the channel).

    `batches` give (images, labels) on the network's device. Returns one score per channel of the unpruned
    architecture; the network's weights and statistics are left as they were.

    Raises: UserError when the loss is not finite.
    """
    return _mean(np.abs(derivative) for derivative in _gate_derivatives(cutter, network, batches, loss))


def fisher(cutter: Cutter, network: Network, batches: Iterable[Batch], loss: Loss) -> Scores:
    """Second-order estimate of how much the loss rises without a channel, with the Fisher information as the Hessian:
    half the squared derivative by its gate, averaged over images (Theis 2018, eq. 8; over everything that reads it).

    Arguments, result and errors as for `taylor`. Where the network has learnt all it can, first derivatives are noise
    around zero, and their squares still tell what matters.
    """
    images = ((image[None], label[None]) for batch in batches for image, label in zip(*batch, strict=True))
    return _mean(derivative**2 / 2 for derivative in _gate_derivatives(cutter, network, images, loss))


def _mean(terms: Iterable[Scores]) -> Scores:
    total, count = np.zeros(1), 0
    for term in terms:
        total, count = total + term, count + 1
    assert count, "importance needs at least one batch"
    return total / count


def _gate_derivatives(cutter: Cutter, network: Network, batches: Iterable[Batch], loss: Loss) -> Iterator[Scores]:
    """For each batch, the derivative of its loss by a factor on all that reads a channel, one per channel."""
    was_training = network.training
    network.eval()  # statistics stay, and dropout is off
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
        network.zero_grad(set_to_none=True)
        network.train(was_training)


def _read_weight_times_gradient(cutter: Cutter, network: Network) -> Scores:
    """Sum of weight times gradient over the slices that read each channel."""
    sums = np.zeros(len(cutter.everything))
    for node in parametric(cutter.graph):
        if node.kind not in ("conv", "deconv") or node.depthwise:
            continue
        weight = network.layer(node.name).weight
        assert isinstance(weight, nn.Parameter)
        if weight.grad is None:  # no output depends on the layer
            continue
        reads = 0 if node.kind == "deconv" else 1
        amounts = (weight.detach() * weight.grad).double().transpose(0, reads).flatten(1).sum(dim=1)
        np.add.at(sums, cutter.read_positions(node), amounts.cpu().numpy())
    return sums


def sum_over_parameters(cutter: Cutter, network: Network, amount_of: Callable[[nn.Parameter], Tensor]) -> Scores:
    """Sum of an amount of each parameter (of its shape) over all parameters that go when a channel goes: its filters,
    the slices that read it, its scales and slopes.
    """
    scores = np.zeros(len(cutter.everything))
    for node in parametric(cutter.graph):
        outputs = cutter.positions(node)
        for parameter in network.layer(node.name).parameters():
            amount = amount_of(parameter).double()
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
