"""Whether a training fits into memory, in each of its stages, and its batches into shares for several processes."""

from __future__ import annotations

from collections.abc import Iterable

from nas.data.share import WHOLE, Share
from nas.host.memory import require_inference, require_training
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
    of crops of `size` (height, width), or scoring does for one whole picture.

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
    """How many whole pictures of `size` (height, width) a training looks at at a time, all processes together, where it
    takes no step: the recipe's batch, but no more of them than need the memory of a step on crops, and one at least.

    It does not depend on what is free, so that trainings that take turns or share a device score alike.
    """
    step = memory(architecture, recipe.crop_of(size), num_classes, encoder=encoder)
    whole, most = memory(architecture, size, num_classes, encoder=encoder), share.most_of(recipe.batch_size)
    fits = (each for each in range(most, 0, -1) if whole.inference_bytes(each) <= step.training_bytes(most))
    return min(recipe.batch_size, share.count * next(fits, 1))


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
    """What a whole training from the start needs at least, in the stage that needs most or to score one picture."""
    crop = recipe.crop_of(size)
    steps = (
        memory(architecture, crop, num_classes, encoder=stage.encoder).training_bytes(stage.batch_size)
        for stage in recipe.stages(architecture, recipe.epochs)
    )
    return max(memory(architecture, size, num_classes).inference_bytes(), *steps)
