"""Optimisers and learning rates of a recipe."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nas.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Group:
    """Parameters that are updated alike."""

    parameters: list[nn.Parameter]
    weight_decay: float
    rate_share: float
    """Of the recipe's rate."""


def parameter_groups(network: nn.Module, recipe: Recipe, pretrained: Collection[nn.Parameter] = ()) -> list[Group]:
    """First what decays (weights of convolutions), then what does not; and the same of `pretrained`, where they have
    another rate.

    Batch norms, PReLU slopes and biases are the parameters with one axis; decaying them only removes the freedom they
    are there for.
    """
    slowed = set(pretrained) if recipe.pretrained_share != 1 else set()
    groups = []
    for share, slow in ((1.0, False), (recipe.pretrained_share, True)):
        own = [each for each in network.parameters() if each.requires_grad and (each in slowed) == slow]
        weights, others = [each for each in own if each.ndim > 1], [each for each in own if each.ndim <= 1]
        groups.append(Group(parameters=weights, weight_decay=share * recipe.weight_decay, rate_share=share))
        groups.append(Group(parameters=others, weight_decay=0.0, rate_share=share))
    return groups if slowed else groups[:2]


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
