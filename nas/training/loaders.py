"""The loaders of a training: augmented crops, whole pictures for batch-norm statistics, and validation pictures."""

from __future__ import annotations

from dataclasses import dataclass

from nas.data import ClassUniform, Dataset, Loader, make_loader
from nas.data.share import WHOLE, Share
from nas.training.recipe import Recipe
from nas.training.room import pictures_at_once
from space.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Whole training pictures without augmentation, for batch-norm statistics."""

    loader: Loader
    batches: int
    """Number of batches to take from the loader."""


@dataclass(frozen=True, kw_only=True)
class Loaders:
    """All loaders of one stage of a training."""

    train: Loader
    """Augmented crops, in the recipe's batches."""
    statistics: Statistics | None
    """None if batch norms keep running averages."""
    validation: Loader

    @property
    def each(self) -> tuple[Loader, ...]:
        """All loaders that there are."""
        statistics = () if self.statistics is None else (self.statistics.loader,)
        return (self.train, *statistics, self.validation)


def make_loaders(
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    *,
    encoder: bool,
    device: str,
    threads: int | None,
    share: Share,
    class_uniform: ClassUniform | None,
) -> Loaders:
    """The loaders of one stage of a training. `recipe`: that of the stage; `encoder`: whether the stage trains the
    encoder alone; `threads`: those of each loader, as in `nas.data.make_loader`.
    """
    train = make_loader(
        dataset,
        "train",
        batch_size=recipe.batch_size,
        augmentation=recipe.augmentation(dataset.size),
        seed=recipe.seed,
        device=device,
        threads=threads,
        share=share,
        class_uniform=class_uniform,
    )
    statistics = None
    if recipe.batch_norm_batches:
        statistics = statistics_of(
            architecture,
            dataset,
            recipe,
            recipe.batch_norm_batches,
            encoder=encoder,
            device=device,
            threads=threads,
            share=share,
        )
    validation = make_loader(
        dataset,
        "validation",
        batch_size=pictures_at_once(
            architecture, recipe, dataset.size, dataset.num_classes, encoder=encoder, share=share
        ),
        augmentation=None,
        device=device,
        threads=threads,
        share=share,
    )
    return Loaders(train=train, statistics=statistics, validation=validation)


def statistics_of(
    architecture: Architecture,
    dataset: Dataset,
    recipe: Recipe,
    batches: int,
    *,
    encoder: bool = False,
    device: str,
    threads: int | None,
    share: Share = WHOLE,
) -> Statistics:
    """As many whole pictures as `batches` of the recipe's batches hold, fewer at a time if a batch of them would need
    more memory than a step of the training.
    """
    at_once = pictures_at_once(architecture, recipe, dataset.size, dataset.num_classes, encoder=encoder, share=share)
    # At least two: behind global pooling a single picture has no variance.
    batch_size = max(at_once, min(2, recipe.batch_size))
    loader = make_loader(
        dataset,
        "train",
        batch_size=batch_size,
        augmentation=None,
        seed=recipe.seed,
        device=device,
        threads=threads,
        share=share,
    )
    return Statistics(loader=loader, batches=-(-batches * recipe.batch_size // batch_size))
