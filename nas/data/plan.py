"""Which windows of which samples an epoch shows: common to the DALI and the PyTorch loader."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Literal, TypeVar

from nas.data.augmentation import Augmentation
from nas.data.cutting import is_filled
from nas.data.dataset import Dataset
from nas.data.decoded import DecodedPairs
from nas.data.sample import Pair
from nas.data.share import Share
from nas.data.showings import ClassUniform, Showing, pixel_of, showings
from nas.data.windows import Window, draw, whole

Item = TypeVar("Item")
ATTEMPTS = 10
"""Most places tried for a window until no class fills it, as in mmsegmentation."""


class EpochPlan:
    """The samples of one split and the order and windows of every epoch."""

    def __init__(
        self,
        dataset: Dataset,
        split: Literal["train", "validation"],
        batch_size: int,
        augmentation: Augmentation | None,
        seed: int,
        threads: int,
        share: Share,
        class_uniform: ClassUniform | None,
    ) -> None:
        """`threads` decode the samples that are not stored yet; `share` is this process's part of each batch."""
        assert class_uniform is None or split == "train", "validation shows every picture once"
        self.output = augmentation.crop if augmentation and augmentation.crop else dataset.size
        self._size = dataset.size
        self._pairs = DecodedPairs(dataset, split)
        self._augmentation = augmentation
        self._batch_size = batch_size
        self._train = split == "train"
        self._seed = seed
        self._threads = threads
        self._share = share
        self._class_uniform = class_uniform
        sizes = [len(part) for part in batches(range(len(self._pairs)), batch_size, join_last=self._train)]
        self._count = len(sizes)  # the same in every epoch, whatever the order
        self.largest_batch = share.most_of(max(sizes))
        """Most samples that any process gets in one batch."""

    def __len__(self) -> int:
        return self._count

    def epoch(self, number: int, most: int | None = None) -> list[list[Showing]]:
        """This process's samples in each batch; only in the first `most` batches, if given. In training no batch is
        left out, even if the process has no sample in it: all processes take their steps together.
        """
        count = len(self._pairs)
        if self._train:
            shown = showings(count, self._class_uniform, seed=self._seed, epoch=number)
        else:
            shown = [Showing(index=index, number=index) for index in range(count)]
        every = itertools.islice(batches(shown, self._batch_size, join_last=self._train), most)
        return [part for part in map(self._share.of, every) if part or self._train]

    def samples(self, epoch: int, shown: Sequence[Showing]) -> list[tuple[Pair, Window]]:
        """Decoded samples, each with the window to show.

        Raises: DataError when a file is missing, unreadable or contradicts its counterpart.
        """
        pairs = self._pairs.pairs([each.index for each in shown], self._threads)
        return [(pair, self._window(epoch, each, pair)) for pair, each in zip(pairs, shown, strict=True)]

    def _window(self, epoch: int, showing: Showing, pair: Pair) -> Window:
        if self._augmentation is None:
            return whole(pair.size)
        number, holding = showing.number, None
        if showing.of_class is not None:
            holding = pixel_of(pair.label, showing.of_class, seed=self._seed, epoch=epoch, number=number)
        drawn = functools.partial(draw, self._augmentation, pair.size, self._size, seed=self._seed, epoch=epoch)
        window, share = drawn(number=number, holding=holding), self._augmentation.crop_class_share
        if share < 1:
            for attempt in range(1, ATTEMPTS):
                if not is_filled(pair.label, window, share):
                    break
                window = drawn(number=number, holding=holding, attempt=attempt)
        return window


def batches(order: Sequence[Item], batch_size: int, *, join_last: bool) -> list[list[Item]]:
    """The samples of each batch; with `join_last` a last batch of a single sample joins the one before it."""
    parts = [list(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    if join_last and batch_size > 1 and len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [parts[-2] + parts[-1]]
    return parts
