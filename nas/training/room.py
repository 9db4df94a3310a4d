"""Whether a training fits into memory, in each of its stages, and its batches into shares for several processes."""

from __future__ import annotations

from collections.abc import Iterable

from nas.data.share import WHOLE, Share
from nas.host.memory import require_training
from nas.training.recipe import Recipe, Stage
from space.architecture import Architecture
from space.count import memory
from space.errors import UserError


def require_room(
    architecture: Architecture,
    recipe: Recipe,
    size: tuple[int, int],
    num_classes: int,
    stages: Iterable[Stage],
    *,
    device: str,
    share: Share = WHOLE,
) -> None:
    """Refuse a training of which one of `stages` needs more memory than the device has free, for its share of batches
    of crops of `size` (height, width).

    Raises: ArchitectureError with what would do, or BusyError where others hold the memory that it needs.
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


def require_shares(images: int, processes: int) -> None:
    """Refuse more processes than there are images at a time.

    Raises: UserError.
    """
    if processes > images:
        raise UserError(
            f"--processes: expected an image of every batch for each process, got {processes} processes and "
            f"{images} images at a time; give {images} at most, or a larger --batch-size"
        )


def training_bytes(architecture: Architecture, recipe: Recipe, size: tuple[int, int], num_classes: int) -> int:
    """What a whole training from the start needs at least, in the stage that needs most."""
    crop = recipe.crop_of(size)
    return max(
        memory(architecture, crop, num_classes, encoder=stage.encoder).training_bytes(stage.batch_size)
        for stage in recipe.stages(architecture, recipe.epochs)
    )
