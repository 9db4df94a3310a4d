"""What feeds a training: augmented crops, whole pictures for statistics of batch norms, and what it is scored on."""

from __future__ import annotations

from dataclasses import dataclass

from nas.data import ClassUniform, Dataset, Loader, make_loader
from nas.data.share import WHOLE, Share
from nas.training.recipe import Recipe
from nas.training.room import pictures_at_once
from space.architecture import Architecture


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Training pictures as they are, whole, for statistics of batch norms."""

    loader: Loader
    batches: int
    """Of the loader, that count."""


@dataclass(frozen=True, kw_only=True)
class Loaders:
    """All that one stage of a training reads."""

    train: Loader
    """Augmented crops, in the recipe's batches."""
    statistics: Statistics | None
    """None where batch norms keep running averages."""
    validation: Loader

    @property
    def each(self) -> tuple[Loader, ...]:
        """All that there are."""
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
    """The loaders of a stage, whose own recipe it is; `encoder`: whether that trains the encoder alone. `threads`: of
    each, as in `nas.data.make_loader`.
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
    """As many whole pictures as are in so many of the recipe's batches, fewer at a time where these would need more
    memory than a step of the training.
    """
    at_once = pictures_at_once(architecture, recipe, dataset.size, dataset.num_classes, encoder=encoder, share=share)
    # Two at the least: behind global pooling a lone one has no variance.
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
