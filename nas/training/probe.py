"""Timing a few training steps, to find how long they take on a device and in which compute mode they are fastest."""

from __future__ import annotations

import copy
import time
from contextlib import nullcontext

import torch

from nas.training.batch_loop import Guard
from nas.training.compute_mode import ComputeMode, device_of, modes_of, usual_mode
from nas.training.recipe import Recipe
from nas.training.stepper import Stepper
from space import Architecture
from space.network import Network, lone_values_kept

ROUNDS = 4  # the first warms up
MOST_SECONDS = 20.0  # no further round begins after this
WORTH = 0.97
"""A compute mode replaces the usual one if its steps take at most this share of the usual mode's time."""


def fastest_mode(
    architecture: Architecture,
    recipe: Recipe,
    size: tuple[int, int],
    num_classes: int,
    *,
    device: str = "cpu",
    guard: Guard = nullcontext,
) -> ComputeMode:
    """The compute mode whose training steps are fastest here, among those that the device supports in hardware: the
    usual one unless another is clearly faster.

    The modes take steps in turns, on random pictures with the recipe's batch and crop of `size`, each step inside a
    `guard()`; the shortest step of each mode counts. Nothing is drawn from, or left in, torch's global random state.

    Raises: UserError when the device is not there.
    """
    return _fastest(_tried(architecture, recipe, size, num_classes, device, guard, every=True))


def step_seconds(
    architecture: Architecture,
    recipe: Recipe,
    size: tuple[int, int],
    num_classes: int,
    *,
    device: str = "cpu",
    guard: Guard = nullcontext,
) -> float:
    """Duration in seconds of a training step by the recipe, in the mode that the training would choose, measured as in
    `fastest_mode`.

    Raises: UserError when the device is not there.
    """
    seconds = _tried(architecture, recipe, size, num_classes, device, guard, every=recipe.probe)
    return seconds[_fastest(seconds)]


def _fastest(seconds: dict[ComputeMode, float]) -> ComputeMode:
    """The mode to choose by the duration of its steps; the first one is the usual mode."""
    usual, *others = seconds
    fastest = min(others, key=lambda mode: seconds[mode], default=usual)
    return fastest if seconds[fastest] <= WORTH * seconds[usual] else usual


def _tried(
    architecture: Architecture,
    recipe: Recipe,
    size: tuple[int, int],
    num_classes: int,
    device: str,
    guard: Guard,
    *,
    every: bool,
) -> dict[ComputeMode, float]:
    """The shortest step in the usual mode and, with `every`, in all others that the device supports."""
    on = device_of(device)
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):  # dropout draws on the device
        torch.manual_seed(0)
        network = architecture.build(num_classes, auxiliary=True, training_form=True).train()
        images = torch.randn(recipe.batch_size, 3, *recipe.crop_of(size)).to(on)
        labels = torch.randint(num_classes, (recipe.batch_size, *recipe.crop_of(size))).to(on)
        modes = modes_of(network, on, recipe) if every else (usual_mode(network, on, recipe),)
        return _seconds(network, modes, recipe, images, labels, guard)


def _seconds(
    network: Network,
    modes: tuple[ComputeMode, ...],
    recipe: Recipe,
    images: torch.Tensor,
    labels: torch.Tensor,
    guard: Guard,
) -> dict[ComputeMode, float]:
    """The shortest step of each mode."""
    steppers = {}
    for mode in modes:
        own = copy.deepcopy(network).to(images.device, memory_format=mode.memory_format)  # type: ignore[call-overload]
        steppers[mode] = (own, Stepper(own, recipe, mode, images.device))
    best = dict.fromkeys(modes, float("inf"))
    began = time.perf_counter()
    for number in range(ROUNDS):
        for mode, (own, stepper) in steppers.items():
            with guard(), lone_values_kept(own):
                start = time.perf_counter()
                float(stepper.take(images, labels, 0, 1))  # waits for the GPU
                took = time.perf_counter() - start
            best[mode] = min(best[mode], took) if number else best[mode]
        if number and time.perf_counter() - began > MOST_SECONDS:
            break
    return best
