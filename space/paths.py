"""Re-parameterised convolutions: trained as a sum of several normalised paths, deployed as one (RepVGG, Ding 2021;
RDRNet).

The graph contains the deployed convolution, which has a bias; in training a `ReparameterizedConv` takes its place. In
evaluation mode, this computes the same as a single convolution with the weights from `folded`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from space.errors import UserError
from space.graph import Norm, Paths


class ReparameterizedConv(nn.Module):
    """Takes the place of a convolution with bias in training: the sum of several normalised paths."""

    def __init__(self, convolution: nn.Conv2d, paths: Paths, like: Norm) -> None:
        """`convolution`: the convolution to replace, whose weights are not used. `like`: numbers of the batch norms."""
        super().__init__()
        read, out = convolution.in_channels, convolution.out_channels

        def norm() -> nn.BatchNorm2d:
            return nn.BatchNorm2d(out, eps=like.epsilon, momentum=like.momentum)

        def alike() -> nn.Conv2d:
            made = copy.deepcopy(convolution)
            made.register_parameter("bias", None)
            return made

        self.main, self.main_norm = alike(), norm()
        self.other: nn.Conv2d | None = None
        self.narrow: nn.Sequential | None = None
        self.identity_norm: nn.BatchNorm2d | None = None
        if paths == "pair":
            self.other, self.other_norm = alike(), norm()
            return
        stride = cast("tuple[int, int]", convolution.stride)
        first, second = nn.Conv2d(read, out, 1, stride), nn.Conv2d(out, out, 1)
        self.narrow = nn.Sequential(first, norm(), second, norm())
        if read == out and stride == (1, 1):
            self.identity_norm = norm()

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the paths."""
        total: Tensor = self.main_norm(self.main(x))
        if self.other is not None:
            total = total + self.other_norm(self.other(x))
        if self.narrow is not None:
            total = total + self.narrow(x)
        if self.identity_norm is not None:
            total = total + self.identity_norm(x)
        return total

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight and bias of the single convolution that computes the same with the running statistics."""
        weight, bias = _with_norm(self.main, self.main_norm)
        if self.other is not None:
            more, shift = _with_norm(self.other, self.other_norm)
            weight, bias = weight + more, bias + shift
        middle = weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2]
        if self.narrow is not None:
            first, first_norm, second, second_norm = self.narrow
            inner, inner_bias = _with_norm(first, first_norm)
            outer, outer_bias = _with_norm(second, second_norm)
            middle += outer[:, :, 0, 0] @ inner[:, :, 0, 0]
            bias = bias + outer[:, :, 0, 0] @ inner_bias + outer_bias
        if self.identity_norm is not None:
            scale, shift = _affine(self.identity_norm)
            middle += torch.diag(scale)
            bias = bias + shift
        kind = self.main.weight.dtype
        return weight.to(kind), bias.to(kind)


def folded_state(network: nn.Module) -> dict[str, Tensor]:
    """The state dict of a network, with re-parameterised convolutions folded into single ones."""
    several = {name: module for name, module in network.named_modules() if isinstance(module, ReparameterizedConv)}
    state: dict[str, Tensor] = {}
    for key, value in network.state_dict().items():
        name = next((name for name in several if key.startswith(f"{name}.")), None)
        if name is None:
            state[key] = value
        elif f"{name}.weight" not in state:
            state[f"{name}.weight"], state[f"{name}.bias"] = several[name].folded()
    return state


def are_of_training_form(names: Iterable[str]) -> bool:
    """Whether names of weights are those of a network in its training form."""
    return any(name.endswith(".main_norm.weight") for name in names)


def require_folded(network: nn.Module) -> None:
    """Raises: UserError for a network with convolutions in their training form."""
    for name, module in network.named_modules():
        if isinstance(module, ReparameterizedConv):
            raise UserError(_unfolded(name))


def one_layer(name: str, module: nn.Module) -> nn.Module:
    """The module, which is called `name`, if it is a layer of the deployed graph.

    Raises: UserError if it is a convolution in its training form.
    """
    if isinstance(module, ReparameterizedConv):
        raise UserError(_unfolded(name))
    return module


def _unfolded(name: str) -> str:
    return (
        f"expected a network in its deployed form, got one whose {name} is trained as several paths; fold it first: "
        "load `space.paths.folded_state(network)` into what `architecture.build` gives without `training_form`"
    )


def _with_norm(convolution: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias, in double precision, of a convolution and the normalisation after it, folded together."""
    assert isinstance(convolution, nn.Conv2d)
    scale, shift = _affine(norm)
    weight = convolution.weight.detach().double() * scale[:, None, None, None]
    return weight, shift if convolution.bias is None else shift + scale * convolution.bias.detach().double()


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift of each channel by the running statistics, in double precision."""
    assert isinstance(norm, (nn.BatchNorm2d, nn.SyncBatchNorm))
    assert norm.running_mean is not None, "running statistics are tracked"
    assert norm.running_var is not None, "running statistics are tracked"
    scale = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    return scale, norm.bias.detach().double() - scale * norm.running_mean.double()
