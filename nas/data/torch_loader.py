"""The reference loader: NumPy cuts, PyTorch resizes."""

from __future__ import annotations

import contextlib
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nas.data.augmentation import Augmentation
from nas.data.batches import Batches, Waited, no_images
from nas.data.cutting import cut_image, show_label
from nas.data.dataset import Dataset
from nas.data.plan import EpochPlan
from nas.data.sample import Pair
from nas.data.share import WHOLE, Share
from nas.data.showings import ClassUniform, Showing
from nas.data.transfer import Transfer
from nas.data.windows import Window


class TorchLoader:
    """A `nas.data.loader.Loader` based on PyTorch."""

    backend: Literal["torch"] = "torch"

    def __init__(
        self,
        dataset: Dataset,
        split: Literal["train", "validation"],
        batch_size: int,
        augmentation: Augmentation | None,
        seed: int,
        device: str,
        threads: int,
        share: Share = WHOLE,
        class_uniform: ClassUniform | None = None,
    ) -> None:
        self.waited = Waited()
        self._plan = EpochPlan(dataset, split, batch_size, augmentation, seed, threads, share, class_uniform)
        self._transfer = Transfer(torch.device(device))
        self._pool = _pool(threads) if threads > 1 else None  # ends with the loader

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int, most: int | None = None) -> Batches:
        """See nas.data.loader.Loader."""
        return Batches(self._plan.epoch(number, most), functools.partial(self._batch, number), self.waited)

    def _batch(self, epoch: int, shown: list[Showing]) -> tuple[Tensor, Tensor]:
        if not shown:
            return no_images(self._plan.output, self._transfer.device)
        samples = self._plan.samples(epoch, shown)
        made = list((map if self._pool is None else self._pool.map)(self._shown, samples))
        images = self._transfer.empty((len(made), 3, *self._plan.output), torch.float32)
        labels = self._transfer.empty((len(made), *self._plan.output), torch.uint8)
        torch.stack([image for image, _ in made], out=images)
        torch.stack([label for _, label in made], out=labels)
        with self._transfer.beside():
            batch = self._transfer.to_device(images), self._transfer.to_device(labels).long()
        self._transfer.arrived(*batch)
        return batch

    def _shown(self, sample: tuple[Pair, Window]) -> tuple[Tensor, Tensor]:
        pair, window = sample
        size = self._plan.output
        return _image(pair.image, window, size), torch.from_numpy(show_label(pair.label, window, size))


def _pool(threads: int) -> ThreadPoolExecutor:
    """A pool whose threads use one torch thread each: the pictures of a batch are made in parallel, and if each picture
    used all of this process's torch threads, there would be far more threads than cores.
    """
    usual = torch.get_num_threads()

    def begin() -> None:
        torch.get_num_threads()  # on its first call a thread adopts the process's setting
        torch.set_num_threads(1)
        # This changed the process's setting too, which later threads would adopt: a short-lived thread restores it.
        last = threading.Thread(target=torch.set_num_threads, args=(usual,))
        with contextlib.suppress(RuntimeError):  # no thread can be started: later ones then use one torch thread
            last.start()
            last.join()

    return ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pictures", initializer=begin)


def _image(pixels: NDArray[np.uint8], window: Window, size: tuple[int, int]) -> Tensor:
    cut = torch.from_numpy(cut_image(pixels, window)).permute(2, 0, 1).float()  # (3, height, width)
    if cut.shape[1:] != size:
        cut = functional.interpolate(cut[None], size, mode="bilinear", antialias=True)[0]
    if window.flip:
        cut = cut.flip(-1)
    if window.colour is not None:
        cut = torch.einsum("ij,jhw->ihw", torch.tensor(window.colour), cut)
    mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (window.mean, window.std))
    return (cut - mean) / std  # (3, h, w)
