"""Data and recipe on which a network is weighed and fine-tuned."""

from __future__ import annotations

import itertools
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

from nas.data import Dataset, Loader, endless, make_loader
from nas.latency.machine import lane
from nas.training import Recipe
from nas.training.batch_loop import Count, Guard, guarded
from pruning.importance import Batch


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTuning:
    """The data and recipe that a network is weighed and fine-tuned by while it is pruned, and the device."""

    dataset: Dataset
    recipe: Recipe
    device: str = "cpu"
    threads: int | None = None
    """Number of threads of torch and of loaders, as in `nas.training.trainer.Trainer`."""

    @property
    def guard(self) -> Guard:
        """Guard of each step on the device."""
        return lane.shared_on(self.device)

    def loader(self, batch_size: int) -> Loader:
        """A loader of training images without augmentation."""
        return make_loader(
            self.dataset,
            "train",
            batch_size=batch_size,
            augmentation=None,
            seed=self.recipe.seed,
            device=self.device,
            threads=self.threads,
        )

    def batches(self, number: int, count: Count) -> Generator[Batch, None, None]:
        """Batches of images and labels, each fetched and processed like a training step, then counted. Close the
        generator after use.
        """
        whole = itertools.islice(endless(self.loader(self.recipe.batch_size)), number)
        with closing(guarded(whole, self.guard)) as batches:
            for batch in batches:
                yield batch
                count(len(batch[0]))
