"""Checks that each stage of a training fits into memory, and that its batches can be divided among processes."""

from __future__ import annotations

from collections.abc import Iterable

from nas.data.share import WHOLE, Share
from nas.host.memory import require_inference, require_training
from nas.host.words import counted
from nas.training.recipe import Recipe, TrainingStage
from space.architecture import Architecture
from space.count import memory
from space.errors import UserError


def require_room(
    architecture: Architecture,
    recipe: Recipe,
    size: tuple[int, int],
    num_classes: int,
    stages: Iterable[TrainingStage],
    *,
    device: str,
    share: Share = WHOLE,
) -> None:
    """Refuse a training that needs more memory than the device has free: in one of `stages`, for this process's share
    of batches of crops from pictures of `size` (height, width), or to score one whole picture.

    Raises: ArchitectureError that says what would fit, or BusyError if other processes hold the memory that it needs.
    """
    for stage in stages:
        require_training(
            architecture,
            recipe.crop_of(size),
            num_classes,
            batch_size=share.most_of(stage.batch_size),
            device=device,
            encoder=stage.encoder,
        )
    require_inference(architecture, size, num_classes, device=device, how=" for scoring a whole picture")


def pictures_at_once(
    architecture: Architecture,
    recipe: Recipe,
    size: tuple[int, int],
    num_classes: int,
    *,
    encoder: bool = False,
    share: Share = WHOLE,
) -> int:
    """Number of whole pictures of `size` (height, width) that a training passes through the network at a time when it
    takes no step, over all processes: the recipe's batch, but no more than fit into the memory of a step on crops, and
    at least one.

    It does not depend on the free memory, so that trainings that take turns or share a device score alike.
    """
    step = memory(architecture, recipe.crop_of(size), num_classes, encoder=encoder)
    whole, most = memory(architecture, size, num_classes, encoder=encoder), share.most_of(recipe.batch_size)
    fits = (each for each in range(most, 0, -1) if whole.inference_bytes(each) <= step.training_bytes(most))
    return min(recipe.batch_size, share.count * next(fits, 1))


def require_shares(images: int, processes: int) -> None:
    """Refuse more processes than there are images in a batch.

    Raises: UserError.
    """
    if processes > images:
        raise UserError(
            f"--processes: expected at least one image of every batch for each process, got {processes} processes and "
            f"{counted(images, 'image')} at a time; give {images} at most, or a larger --batch-size"
        )


def training_bytes(architecture: Architecture, recipe: Recipe, size: tuple[int, int], num_classes: int) -> int:
    """Least memory in bytes for a whole training from the start: that of its largest stage, or to score one picture."""
    crop = recipe.crop_of(size)
    steps = (
        memory(architecture, crop, num_classes, encoder=stage.encoder).training_bytes(stage.batch_size)
        for stage in recipe.stages(architecture, recipe.epochs)
    )
    return max(memory(architecture, size, num_classes).inference_bytes(), *steps)
