"""Batches of pictures and labels: the protocol, and the choice between DALI and PyTorch."""

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

if TYPE_CHECKING:
    from torch import Tensor


BYTES_PER_PIXEL = 3 * 4 + 8
"""Three colours as float32 and a label as int64."""
COPIES = 2


class Loader(Protocol):
    """Batches of one split. An epoch depends on the seed and its number only, so resuming needs no state."""

    @property
    def backend(self) -> Literal["dali", "torch"]:
        """Which implementation feeds the batches."""

    @property
    def waited(self) -> Waited:
        """How long was waited for batches, in all epochs so far."""

    def __len__(self) -> int:
        """Batches per epoch."""

    def epoch(self, number: int, most: int | None = None) -> Batches:
        """Images float32 (N, 3, h, w), normalised, and labels int64 (N, h, w) with IGNORE for void, on the device; the
        first `most` batches, where that is given.

        Raises: DataError when a file is missing, unreadable or contradicts its partner.
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

    "train" is shuffled anew in each epoch, and no sample is ever left out: a last batch of one sample, which batch
    normalisation could not take, joins the batch before it. "validation" comes in order, the last batch as it is.
    Without an augmentation every picture is shown whole at the data set's size. Nothing runs between two batches
    unless in `Batches.ahead`, so that no loader disturbs a timing.

    Of several processes that take the same steps each has its `share` of the batches: the images of one process, dealt
    out. In training one without an image is a batch of none.

    With `class_uniform` sampling, of "train" only, a share of each epoch shows pictures class by class instead: some
    more than once, others not at all.

    `threads` make the pictures of a batch; None is `usual_threads(device)`.

    `backend` "auto" is DALI where it works on the device, else PyTorch with Pillow; both give the same batches.

    Raises: DataError when batch_size, threads or seed is out of range, a batch does not fit into memory, the split is
    empty, or DALI was asked for and is missing.
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
        raise DataError("backend: expected DALI, got none; pip install nvidia-dali-cuda130, or use backend torch")
    from nas.data.dali_loader import DaliLoader

    return DaliLoader(dataset, split, batch_size, augmentation, seed, device, threads, share, class_uniform)


def usual_threads(device: str) -> int:
    """How many threads make pictures for a device unless told otherwise: one for the CPU, whose cores are at work on
    the batch before; for a GPU all that this process may use.
    """
    return 1 if device == "cpu" else usable_cores()


def endless(loader: Loader) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch after the other, without end."""
    return itertools.chain.from_iterable(loader.epoch(number) for number in itertools.count())


def _require_memory(dataset: Dataset, batch_size: int, augmentation: Augmentation | None) -> None:
    """That a batch and its copy on the way to the network fit into this machine.

    Raises: DataError with the largest batch that does.
    """
    height, width = augmentation.crop if augmentation and augmentation.crop else dataset.size
    one = COPIES * BYTES_PER_PIXEL * height * width
    most = whole_bytes() // one
    if batch_size > most:
        advice = f"give a batch of {most} at most, or a smaller size" if most else "give a smaller size"
        raise DataError(
            f"batch_size: expected what fits into this machine's memory, got {batch_size} images of {height}x{width} "
            f"(HxW) at a time, {batch_size * one / 2**30:.1f} GiB; {advice}"
        )


def _dali_is_installed() -> bool:
    try:
        return importlib.util.find_spec("nvidia.dali") is not None
    except ModuleNotFoundError:  # not even the package `nvidia`
        return False


@functools.cache  # so that it is tried and said once
def dali_works(device: str) -> bool:
    """Whether DALI reads a picture for `device` here, by letting it read one; what keeps it from doing so is said.

    A library that is there may still not fit the driver, the device or torch, which shows only when it runs.
    """
    if not _dali_is_installed():
        logging.getLogger("nas.data").warning("DALI is not installed; pictures are read by Pillow and PyTorch instead")
        return False
    try:
        _read_one_by_dali(device)
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        words = " ".join(str(error).split())[:200]
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
