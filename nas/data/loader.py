"""Loaders of pictures and labels: their interface, and the choice between DALI and PyTorch."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, Protocol

from nas.data.augmentation import Augmentation
from nas.data.batches import Batches, Waited
from nas.data.dataset import Dataset, Split, label_map
from nas.data.share import WHOLE, Share
from nas.data.showings import ClassUniform
from nas.errors import DataError
from nas.host.cores import usable_cores
from nas.host.room import whole_bytes
from nas.host.words import counted, one_line

if TYPE_CHECKING:
    from torch import Tensor


BYTES_PER_PIXEL = 3 * 4 + 8
"""Three colours as float32 and a label as int64."""
COPIES = 2


class Loader(Protocol):
    """Batches of one split. An epoch depends only on the seed and its number, so resuming needs no state."""

    @property
    def backend(self) -> Literal["dali", "torch"]:
        """Which implementation makes the batches."""

    @property
    def waited(self) -> Waited:
        """Time spent waiting for batches, over all epochs so far."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, number: int, most: int | None = None) -> Batches:
        """Images float32 (N, 3, h, w), normalised, and labels int64 (N, h, w) with IGNORE for void, on the device; only
        the first `most` batches, if given.

        Raises: DataError when a file is missing, unreadable or contradicts its counterpart.
        """


def make_loader(
    dataset: Dataset,
    split: Literal["train", "validation"],
    *,
    batch_size: int,
    augmentation: Augmentation | None,
    seed: int = 0,
    device: str = "cpu",
    backend: Literal["auto", "dali", "torch"] = "auto",
    threads: int | None = None,
    share: Share = WHOLE,
    class_uniform: ClassUniform | None = None,
) -> Loader:
    """A loader of one split.

    "train" is shuffled anew in each epoch and leaves out no sample: a last batch of a single sample, which batch norm
    could not take, joins the batch before it. "validation" comes in order, its last batch as it is. Without an
    augmentation every picture is shown whole at the data set's size. Nothing runs between two batches except inside
    `Batches.ahead`, so that no loader disturbs a timing.

    `threads`: number of threads that make the pictures of a batch; None: `usual_threads(device)`.

    `backend`: "auto" is DALI where it works on the device, otherwise PyTorch with Pillow; both give the same batches.

    `share`: the part of each batch that this process gets, if several take the same steps; together they get the
    batches of a single process. In training, a process without an image gets an empty batch.

    `class_uniform`, for "train" only: a share of each epoch shows pictures class by class instead, some of them more
    than once and others not at all.

    Raises: DataError when batch_size, threads or seed is out of range, a batch does not fit into memory, the split is
    empty, or DALI is asked for and missing.
    """
    threads = usual_threads(device) if threads is None else threads
    for name, value, least in (("batch_size", batch_size, 1), ("threads", threads, 1), ("seed", seed, 0)):
        if value < least:
            raise DataError(f"{name}: expected {least} or more, got {value}")
    if not len(dataset.split(split)):
        raise DataError(f"{dataset.name}: the {split} split is empty; expected at least one image with its label")
    _require_memory(dataset, share.most_of(min(batch_size, len(dataset.split(split)))), augmentation)
    if backend == "torch" or (backend == "auto" and not dali_works(device)):
        from nas.data.torch_loader import TorchLoader

        return TorchLoader(dataset, split, batch_size, augmentation, seed, device, threads, share, class_uniform)
    if not _dali_is_installed():
        raise DataError(
            "backend: expected DALI, which is not installed; pip install nvidia-dali-cuda130, or use backend torch"
        )
    from nas.data.dali_loader import DaliLoader

    return DaliLoader(dataset, split, batch_size, augmentation, seed, device, threads, share, class_uniform)


def usual_threads(device: str) -> int:
    """Default number of threads that make pictures for a device: one for the CPU, whose cores are busy with the
    previous batch; for a GPU, one for each core that this process may use.
    """
    return 1 if device == "cpu" else usable_cores()


def endless(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch after another, without end."""
    return itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())


def _require_memory(dataset: Dataset, batch_size: int, augmentation: Augmentation | None) -> None:
    """Require that a batch and its copy on the way to the network fit into this machine's memory.

    Raises: DataError that names the largest batch that fits.
    """
    height, width = augmentation.crop if augmentation and augmentation.crop else dataset.size
    one = COPIES * BYTES_PER_PIXEL * height * width
    most = whole_bytes() // one
    if batch_size > most:
        advice = f"give a batch of {most} at most, or a smaller size" if most else "give a smaller size"
        raise DataError(
            "batch_size: expected a batch that fits into this machine's memory, got "
            f"{counted(batch_size, 'image')} of {height}x{width} (HxW), {batch_size * one / 2**30:.1f} GiB; {advice}"
        )


def _dali_is_installed() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # not even the package `nvidia`
        return False


@functools.cache  # tried, and reported, only once
def dali_works(device: str) -> bool:
    """Whether DALI can read pictures for `device` here, found by reading one. If it cannot, the reason is logged.

    An installed library may still not fit the driver, the device or torch, which shows only when it runs.
    """
    if not _dali_is_installed():
        logging.getLogger("nas.data").warning("DALI is not installed; pictures are read by Pillow and PyTorch instead")
        return False
    try:
        _read_one_by_dali(device)
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        words = one_line(error, 200)
        logging.getLogger("nas.data").warning(
            "DALI does not work on %s (%s); Pillow and PyTorch read pictures instead", device, words
        )
        return False
    return True


def _read_one_by_dali(device: str) -> None:
    from PIL import Image

    from nas.data.dali_loader import DaliLoader
    from nas.storage.scratch import scratch_folder

    with scratch_folder() as folder:
        image, label = folder / "image.jpg", folder / "label.png"
        Image.new("RGB", (16, 16)).save(image)
        Image.new("L", (16, 16)).save(label)
        one = Split(images=(image,), labels=(label,))
        dataset = Dataset(
            name="one",
            classes=("all",),
            palette=((0, 0, 0),),
            label_map=label_map(1),
            train=one,
            validation=one,
            size=(16, 16),
            cache_gigabytes=0,
        )
        next(DaliLoader(dataset, "validation", 1, None, 0, device, 1).epoch(0))
