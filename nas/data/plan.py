"""Which windows of which samples an epoch shows: the part of a loader that DALI and PyTorch share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from nas.data.augmentation import Augmentation
from nas.data.dataset import Dataset
from nas.data.decoding import decode_picture
from nas.data.files import Encoded, SampleFiles, read_label
from nas.data.windows import Window, draw, order, whole
from space.errors import DataError


class EpochPlan:
    """The samples of one split and the order and windows of every epoch."""

    def __init__(
        self,
        dataset: Dataset,
        split: Literal["train", "validation"],
        batch_size: int,
        augmentation: Augmentation | None,
        seed: int,
    ) -> None:
        self.dataset = dataset
        self.samples = SampleFiles(dataset, split)
        self.output = augmentation.crop if augmentation and augmentation.crop else dataset.size
        self._augmentation = augmentation
        self._batch_size = batch_size
        self._train = split == "train"
        self._seed = seed

    def __len__(self) -> int:
        return len(batches(range(len(self.samples)), self._batch_size, join_last=self._train))

    @property
    def largest_batch(self) -> int:
        """Samples in the largest batch of an epoch."""
        return max(len(batch) for batch in batches(range(len(self.samples)), self._batch_size, join_last=self._train))

    def epoch(self, number: int) -> Iterator[list[int]]:
        """The samples of each batch."""
        count = len(self.samples)
        shuffled = order(count, seed=self._seed, epoch=number).tolist() if self._train else range(count)
        return iter(batches(shuffled, self._batch_size, join_last=self._train))

    def sample(self, epoch: int, index: int) -> tuple[Encoded, Window]:
        """One encoded sample and what to show of it."""
        encoded = self.samples[index]
        if self._augmentation is None:
            return encoded, whole(encoded.size)
        size, seed = self.dataset.size, self._seed
        return encoded, draw(self._augmentation, encoded.size, size, seed=seed, epoch=epoch, index=index)

    def decode(self, indices: list[int]) -> None:
        """Let our decoder read the samples of a batch that another one could not read.

        Raises: DataError naming the file at fault, if ours cannot either.
        """
        for index in indices:
            self.samples.decode(index)

    def explain(self, indices: list[int]) -> None:
        """Reads the samples of a batch that went wrong one by one.

        Raises: DataError naming the file at fault, if one of them is.
        """
        for index in indices:
            image, label = self.samples.paths(index)
            try:
                decode_picture(self.samples[index].image, image)
                read_label(self.dataset, label, None)
            except DataError as error:
                raise error from None


def batches(order: Sequence[int], batch_size: int, *, join_last: bool) -> list[list[int]]:
    """The samples of each batch; with `join_last` a last batch of a single sample joins the one before it."""
    parts = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if join_last and batch_size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts
