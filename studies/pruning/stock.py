"""Torch-Pruning's stock importances (1.6), over our groups of channels: what `matrix.py` compares with.

Its own tracing does not see an image that ERFNet and FPLNet concatenate, so its classes cannot be used on them. Where
it can trace a network and knows every layer's place in it, these are its numbers
(`tests/pruning/test_against_torch_pruning.py`): the filters of a channel and the slices that read it, in dense
convolutions alone; magnitude counts scales of batch norms as well; and each group is divided by its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from pruning.importance import Batch, ChannelScores, LossFunction
from pruning.scores import sum_over_parameters
from pruning.surgery import Cutter
from space.network import Network


def group_magnitude(cutter: Cutter, network: Network) -> ChannelScores:
    """`GroupMagnitudeImportance`: squared L2 norm."""
    counted = _dense(network)
    counted |= {id(module.weight) for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    return _relative(cutter, network, counted, lambda parameter: parameter.detach() ** 2)


def group_taylor(cutter: Cutter, network: Network, batches: Iterable[Batch], loss: LossFunction) -> ChannelScores:
    """`GroupTaylorImportance`: summed |weight x gradient|, with gradients of the mean loss of all batches."""
    network.zero_grad()
    batches = list(batches)
    for images, labels in batches:
        torch.autograd.backward(loss(network(images), labels) / len(batches))

    def amount(parameter: nn.Parameter) -> Tensor:
        gradient = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        return (parameter.detach() * gradient).abs()

    scores = _relative(cutter, network, _dense(network), amount)
    network.zero_grad()
    return scores


def _dense(network: Network) -> set[int]:
    """Weights of convolutions that are not depthwise, by identity."""
    convolutions = (module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)))
    return {id(module.weight) for module in convolutions if module.groups == 1}


def _relative(
    cutter: Cutter, network: Network, counted: set[int], amount_of: Callable[[nn.Parameter], Tensor]
) -> ChannelScores:
    def amount(parameter: nn.Parameter) -> Tensor:
        return amount_of(parameter) if id(parameter) in counted else torch.zeros_like(parameter)

    scores = sum_over_parameters(cutter, network, amount)
    for name in cutter.map.names:
        members = cutter.map.members(name)
        scores[members] /= max(scores[members].mean(), 1e-30)
    return scores
