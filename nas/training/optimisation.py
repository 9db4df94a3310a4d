"""Optimisers and learning rates of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from nas.training.recipe import Recipe


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser. Its first group decays (weights of convolutions), its second does not.

    Batch norms, PReLU slopes and biases are the parameters with one axis; decaying them only removes the freedom they
    are there for. All are updated by one kernel: networks have hundreds of small parameters.
    """
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=recipe.learning_rate, betas=(recipe.momentum, recipe.second_momentum), fused=True)


def learning_rate(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of a schedule of `steps`: a pure function, so resuming needs no state."""
    assert 0 <= step < steps, (step, steps)
    warmup = min(recipe.warmup_steps, steps // 4)
    if step < warmup:
        share = recipe.warmup_start + (1 - recipe.warmup_start) * (step + 1) / (warmup + 1)
        return recipe.learning_rate * share
    progress = (step - warmup) / (steps - warmup)
    if recipe.schedule == "steps":
        factor = 1.0
        for milestone, reached in zip(recipe.milestones, recipe.factors, strict=True):
            factor = reached if progress >= milestone else factor
        return recipe.learning_rate * factor
    cosine = (1 + math.cos(math.pi * progress)) / 2
    share = cosine if recipe.schedule == "cosine" else (1 - progress) ** recipe.power
    return recipe.final_learning_rate + (recipe.learning_rate - recipe.final_learning_rate) * share
