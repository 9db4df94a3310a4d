"""The reference loader: Pillow decodes, NumPy cuts, PyTorch resizes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nas.data.augmentation import Augmentation
from nas.data.dataset import IGNORE, ILLEGAL, Dataset
from nas.data.decoding import decode_label, decode_picture
from nas.data.files import nearest_indices
from nas.data.plan import EpochPlan
from nas.data.windows import PADDING, Window


class TorchLoader:
    """A nas.data.loader.Loader on Pillow and PyTorch."""

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
    ) -> None:
        self._plan = EpochPlan(dataset, split, batch_size, augmentation, seed)
        self._label_map = np.asarray(dataset.label_map, dtype=np.int64)
        self._device = torch.device(device)
        self._threads = threads

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See nas.data.loader.Loader."""
        with ThreadPoolExecutor(max_workers=self._threads) as pool:
            for indices in self._plan.epoch(number):
                drawn = list(pool.map(lambda index: self._one(number, index), indices))
                images = torch.stack([image for image, _ in drawn])  # (N, 3, h, w)
                labels = torch.stack([label for _, label in drawn])  # (N, h, w)
                yield images.to(self._device), labels.to(self._device)

    def _one(self, epoch: int, index: int) -> tuple[Tensor, Tensor]:
        encoded, window = self._plan.sample(epoch, index)
        image_path, label_path = self._plan.samples.paths(index)
        image = _image(decode_picture(encoded.image, image_path).pixels, window, self._plan.output)
        label = self._label_map[_label(decode_label(encoded.label, label_path).values, window, self._plan.output)]
        if (label == ILLEGAL).any():
            self._plan.explain([index])
        return image, torch.from_numpy(label)


def _image(pixels: NDArray[np.uint8], window: Window, size: tuple[int, int]) -> Tensor:
    cut = torch.from_numpy(_cut(pixels, window, PADDING)).permute(2, 0, 1).float()  # (3, height, width)
    if cut.shape[1:] != size:
        cut = functional.interpolate(cut[None], size, mode="bilinear", antialias=True)[0]
    if window.flip:
        cut = cut.flip(-1)
    mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (window.mean, window.std))
    return (cut - mean) / std  # (3, h, w)


def _label(values: NDArray[np.uint8], window: Window, size: tuple[int, int]) -> NDArray[np.uint8]:
    cut = _cut(values, window, IGNORE)
    rows, columns = nearest_indices(window.height, size[0]), nearest_indices(window.width, size[1])
    return cut[np.ix_(rows, columns[::-1] if window.flip else columns)]  # (h, w)


def _cut(pixels: NDArray[np.uint8], window: Window, fill: int | tuple[int, ...]) -> NDArray[np.uint8]:
    """The window of an (H, W) or (H, W, 3) array, filled where it reaches outside."""
    out = np.empty((window.height, window.width, *pixels.shape[2:]), dtype=np.uint8)
    out[:] = fill
    top, left = max(window.top, 0), max(window.left, 0)
    bottom = min(window.top + window.height, pixels.shape[0])
    right = min(window.left + window.width, pixels.shape[1])
    if top < bottom and left < right:
        target = (slice(top - window.top, bottom - window.top), slice(left - window.left, right - window.left))
        out[target] = pixels[top:bottom, left:right]
    return out
