"""Optimisers and learning rates of a recipe."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nas.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that are updated with the same settings."""

    parameters: list[nn.Parameter]
    weight_decay: float
    rate_share: float
    """Factor on the recipe's learning rate."""


def parameter_groups(network: nn.Module, recipe: Recipe, pretrained: Collection[nn.Parameter] = ()) -> list[Group]:
    """The parameters with the recipe's learning rate, then those with other rates; for each rate, first the parameters
    that decay, then those that do not. A recipe can give `pretrained` parameters and parts of the network other rates
    (`pretrained_share`, `rate_shares`); where both apply, the factors are multiplied.

    By default the parameters with one axis (batch norms, PReLU slopes and biases) do not decay: decay would only take
    away the freedom that they are there for.
    """
    slowed = set(pretrained) if recipe.pretrained_share != 1 else set()
    decaying = _decaying(network, recipe)
    found: dict[tuple[float, bool], tuple[list[nn.Parameter], list[nn.Parameter]]] = {(1.0, False): ([], [])}
    for name, each in network.named_parameters():
        if each.requires_grad:
            weights, others = found.setdefault((_rate_share(name, recipe.rate_shares), each in slowed), ([], []))
            (weights if each in decaying else others).append(each)
    groups = []
    for (share, slow), (weights, others) in found.items():
        decay = recipe.weight_decay * (recipe.pretrained_share if slow else 1.0)
        share *= recipe.pretrained_share if slow else 1.0
        groups.append(Group(parameters=weights, weight_decay=decay, rate_share=share))
        groups.append(Group(parameters=others, weight_decay=0.0, rate_share=share))
    return groups


def _decaying(network: nn.Module, recipe: Recipe) -> set[Tensor]:
    """The parameters that decay."""
    if recipe.weight_decay_of == "all":
        return set(network.parameters())
    found: set[Tensor] = {each for each in network.parameters() if each.ndim > 1}
    if recipe.weight_decay_of == "convolutions":
        layers = [each for each in network.modules() if isinstance(each, (nn.Conv2d, nn.ConvTranspose2d))]
        found.update(each.bias for each in layers if each.bias is not None)
    return found


def missing_parts(network: nn.Module, recipe: Recipe) -> tuple[str, ...]:
    """Parts named in `rate_shares` that the network lacks."""
    names = [name for name, _ in network.named_parameters()]
    return tuple(part for part in recipe.rate_shares if not any(_is_in(name, part) for name in names))


def _rate_share(name: str, shares: Mapping[str, float]) -> float:
    """The learning-rate factor of a parameter: that of the smallest part in `shares` that contains it, or 1."""
    parts = [part for part in shares if _is_in(name, part)]
    return shares[max(parts, key=len)] if parts else 1.0


def _is_in(name: str, part: str) -> bool:
    """Whether the parameter `name` belongs to the part of the network."""
    inside = name.removeprefix("network.")  # of a module that trains the network with something else
    return re.match(rf"{re.escape(part)}((?<!\d)\d+)?[._]", inside) is not None


def make_optimizer(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser. One fused kernel updates all parameters of a group: there are hundreds of small ones."""
    options = [{"params": group.parameters, "weight_decay": group.weight_decay} for group in groups]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(options, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(options, lr=recipe.learning_rate, betas=(recipe.momentum, recipe.second_momentum), fused=True)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Load a saved state into an optimiser from `make_optimizer`. A state of an earlier version, which had no fused
    kernels, continues without them.
    """
    optimizer.load_state_dict(dict(state))
    # Torch sets this flag when an optimiser is made, and keeps it if the state has no fused kernels. A GradScaler would
    # then leave the unscaling of gradients to kernels that cannot do it, and the step would fail.
    fused = all(group["fused"] for group in optimizer.param_groups)
    optimizer._step_supports_amp_scaling = fused  # type: ignore[attr-defined]


def learning_rate(recipe: Recipe, step: int, steps: int, share: float = 1.0) -> float:
    """Learning rate at step `step` (from 0) of a schedule of `steps`, for parameters with a `share` of the recipe's
    rate: a pure function, so resuming needs no state.
    """
    assert 0 <= step < steps, (step, steps)
    whole = share * recipe.learning_rate
    warmup = min(recipe.warmup_steps, steps // 4)
    if step < warmup:
        if recipe.warmup_growth == "exponential":
            return whole * math.pow(recipe.warmup_start, 1 - (step + 1) / (warmup + 1))
        return whole * (recipe.warmup_start + (1 - recipe.warmup_start) * (step + 1) / (warmup + 1))
    progress = (step - warmup) / (steps - warmup)
    if recipe.schedule == "steps":
        factor = 1.0
        for milestone, reached in zip(recipe.milestones, recipe.factors, strict=True):
            factor = reached if progress >= milestone else factor
        return whole * factor
    cosine = (1 + math.cos(math.pi * progress)) / 2
    fallen = cosine if recipe.schedule == "cosine" else (1 - progress) ** recipe.power
    return recipe.final_learning_rate + (whole - recipe.final_learning_rate) * fallen
