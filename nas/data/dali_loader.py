"""The loader based on NVIDIA DALI: the same windows as the reference loader, resized and normalised on a CPU or GPU.

The pipeline is fed one batch at a time and runs synchronously, so DALI keeps no state between batches and an epoch can
start anywhere. Prefetching is left to `nas.data.batches`, which knows when a latency is being measured.
"""

# DALI creates most of its names at import time, where no type checker sees them.
# mypy: disable-error-code="attr-defined,arg-type,call-overload,no-untyped-call"

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.plugin.pytorch import feed_ndarray
from torch import Tensor

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

_PARAMETERS = ("mirror", "mean", "std")


class DaliLoader:
    """A `nas.data.loader.Loader` based on DALI."""

    backend: Literal["dali"] = "dali"

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
        self._threads = threads
        self._pipelines: dict[tuple[bool, bool], Pipeline] = {}  # keys: (resized, coloured)

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int, most: int | None = None) -> Batches:
        """See nas.data.loader.Loader."""
        return Batches(self._plan.epoch(number, most), functools.partial(self._batch, number), self.waited)

    def _batch(self, epoch: int, shown: list[Showing]) -> tuple[Tensor, Tensor]:
        if not shown:
            return no_images(self._plan.output, self._transfer.device)
        samples = self._plan.samples(epoch, shown)
        resized = any((window.height, window.width) != self._plan.output for _, window in samples)
        coloured = any(window.colour is not None for _, window in samples)
        if (resized, coloured) not in self._pipelines:
            made = _pipeline(self._plan, self._transfer.device, self._threads, resized=resized, coloured=coloured)
            self._pipelines[resized, coloured] = made
        pipeline = self._pipelines[resized, coloured]
        cut = self._cut(samples)  # must stay alive until the run is over: DALI does not copy it
        _feed(pipeline, cut, [window for _, window in samples], coloured=coloured)
        (images,) = pipeline.run()
        labels = self._transfer.empty((len(shown), *self._plan.output), torch.uint8)
        shown_labels = [show_label(pair.label, window, self._plan.output) for pair, window in samples]
        np.stack(shown_labels, out=labels.numpy())
        # DALI reuses its buffers, so the batch is copied out.
        with self._transfer.beside():
            image_batch = torch.empty((len(shown), 3, *self._plan.output), device=self._transfer.device)
            feed_ndarray(images.as_tensor(), image_batch, cuda_stream=self._transfer.stream)
            label_batch = self._transfer.to_device(labels).long()
        self._transfer.arrived(image_batch, label_batch)
        return image_batch, label_batch

    def _cut(self, samples: list[tuple[Pair, Window]]) -> list[NDArray[np.uint8]]:
        """The window of each picture, (height, width, 3), one after the other in a single buffer."""
        ends = np.cumsum([3 * window.height * window.width for _, window in samples]).tolist()
        parts = np.split(self._transfer.empty((ends[-1],), torch.uint8).numpy(), ends[:-1])
        return [
            cut_image(pair.image, window, part.reshape(window.height, window.width, 3))
            for (pair, window), part in zip(samples, parts, strict=True)
        ]


def _pipeline(plan: EpochPlan, device: torch.device, threads: int, *, resized: bool, coloured: bool) -> Pipeline:
    on_gpu = device.type == "cuda"
    pipeline = Pipeline(
        batch_size=plan.largest_batch,
        num_threads=threads,
        device_id=(device.index or 0) if on_gpu else None,
        exec_async=False,
        exec_pipelined=False,
        prefetch_queue_depth=1,
    )
    with pipeline:
        window = fn.external_source(name="window", dtype=types.UINT8, ndim=3, layout="HWC", no_copy=True)
        given = {name: fn.external_source(name=name) for name in _PARAMETERS}
        shown: Any = window.gpu() if on_gpu else window  # (height, width, 3)
        if resized:
            shown = fn.resize(
                shown, size=plan.output, interp_type=types.INTERP_LINEAR, antialias=True, dtype=types.FLOAT
            )
        if coloured:
            shown = fn.coord_transform(shown, M=fn.external_source(name="colour"), dtype=types.FLOAT)  # on RGB values
        normalised = fn.crop_mirror_normalize(shown, **given, dtype=types.FLOAT, output_layout="CHW")  # (3, h, w)
        pipeline.set_outputs(normalised)
    pipeline.build()
    return pipeline


def _feed(pipeline: Pipeline, cut: list[NDArray[np.uint8]], windows: Sequence[Window], *, coloured: bool) -> None:
    pipeline.feed_input("window", cut)
    pipeline.feed_input("mirror", np.array([window.flip for window in windows], dtype=np.int32))
    pipeline.feed_input("mean", np.array([window.mean for window in windows], dtype=np.float32))
    pipeline.feed_input("std", np.array([window.std for window in windows], dtype=np.float32))
    if coloured:
        pipeline.feed_input("colour", np.array([window.colour for window in windows], dtype=np.float32))
