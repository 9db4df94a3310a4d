"""Whether a training fits into memory, in each of its stages: asked before anything of it is built."""

from __future__ import annotations

from nas.data.share import WHOLE, Share
from nas.host.memory import require_training
from nas.training.recipe import Recipe
from space.architecture import Architecture
from space.count import memory


def require_room(
    architecture: Architecture,
    recipe: Recipe,
    size: tuple[int, int],
    num_classes: int,
    *,
    epochs: int | None,
    device: str,
    share: Share = WHOLE,
) -> None:
    """Refuse a training that needs more memory than the device has, for its share of batches of crops of `size`
    (height, width). `epochs`: as `Recipe.stages`.

    Raises: ArchitectureError with what would do, or BusyError where others hold the memory that it needs.
    """
    for stage in recipe.stages(architecture, epochs):
        require_training(
            architecture,
            recipe.crop_of(size),
            num_classes,
            batch_size=share.most_of(stage.batch_size),
            device=device,
            encoder=stage.encoder,
        )


def training_bytes(architecture: Architecture, recipe: Recipe, size: tuple[int, int], num_classes: int) -> int:
    """What a whole training from the start needs at least, in the stage that needs most."""
    crop = recipe.crop_of(size)
    return max(
        memory(architecture, crop, num_classes, encoder=stage.encoder).training_bytes(stage.batch_size)
        for stage in recipe.stages(architecture, recipe.epochs)
    )
