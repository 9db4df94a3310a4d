"""What a network is weighed and fine-tuned on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nas.data import Dataset, Loader, endless, make_loader
from nas.latency.machine import lane
from nas.training import Recipe
from pruning.importance import Batch


@dataclass(frozen=True, kw_only=True, eq=False)
class FineTuning:
    """Data, a recipe, and the device that works on them."""

    dataset: Dataset
    recipe: Recipe
    device: str = "cpu"

    def loader(self, batch_size: int) -> Loader:
        """Training images as they are."""
        return make_loader(
            self.dataset, "train", batch_size=batch_size, augmentation=None, seed=self.recipe.seed, device=self.device
        )

    def batches(self, count: int) -> Iterator[Batch]:
        """Images and labels, each batch fetched and worked on as a step of training."""
        return in_steps(itertools.islice(endless(self.loader(self.recipe.batch_size)), count))


def in_steps(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The batches, each fetched and worked on as a step of training: never while another process times a network."""
    source = iter(batches)
    while True:
        with lane.training_step():
            batch = next(source, None)
            if batch is None:
                return
            yield batch
