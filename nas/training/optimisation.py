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
    """Parameters that are updated alike."""

    parameters: list[nn.Parameter]
    weight_decay: float
    rate_share: float
    """Of the recipe's rate."""


def parameter_groups(network: nn.Module, recipe: Recipe, pretrained: Collection[nn.Parameter] = ()) -> list[Group]:
    """First what has the recipe's rate, then what has another: of each rate what decays, then what does not. A rate is
    another for `pretrained` parameters and for parts of the network where the recipe says so, and the product for both.

    By default batch norms, PReLU slopes and biases, which are the parameters with one axis, do not decay: that only
    removes the freedom they are there for.
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
    """The parts with rates of their own that the network has not."""
    names = [name for name, _ in network.named_parameters()]
    return tuple(part for part in recipe.rate_shares if not any(_is_in(name, part) for name in names))


def _rate_share(name: str, shares: Mapping[str, float]) -> float:
    """Of the parameter of that name: that of the smallest part of the network that it is in, of those with one."""
    parts = [part for part in shares if _is_in(name, part)]
    return shares[max(parts, key=len)] if parts else 1.0


def _is_in(name: str, part: str) -> bool:
    """Whether the parameter of that name is of that part of the network."""
    inside = name.removeprefix("network.")  # what trains a network with something else
    return re.match(rf"{re.escape(part)}((?<!\d)\d+)?[._]", inside) is not None


def make_optimizer(groups: list[Group], recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser. All parameters of a group are updated by one kernel: there are hundreds of small ones."""
    options = [{"params": group.parameters, "weight_decay": group.weight_decay} for group in groups]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(options, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(options, lr=recipe.learning_rate, betas=(recipe.momentum, recipe.second_momentum), fused=True)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Give an optimiser of `make_optimizer` a state that was saved: one of an earlier version, which had no fused
    kernels, goes on without them.
    """
    optimizer.load_state_dict(dict(state))
    # Torch sets this when an optimiser is made, not when a state says otherwise; a GradScaler then leaves the scale of
    # gradients to a kernel that does not know it, and the step fails.
    fused = all(group["fused"] for group in optimizer.param_groups)
    optimizer._step_supports_amp_scaling = fused  # type: ignore[attr-defined]


def learning_rate(recipe: Recipe, step: int, steps: int, share: float = 1.0) -> float:
    """Learning rate of step `step` (from 0) of a schedule of `steps`, of parameters that have a share of the recipe's:
    a pure function, so resuming needs no state.
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
