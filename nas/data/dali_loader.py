"""The loader on NVIDIA DALI: the same windows as the reference loader, cut, resized and normalised on the CPU or a GPU.

The pipeline is fed one batch at a time and run synchronously: DALI keeps no state between batches and an epoch can
start anywhere. Working ahead is the business of `nas.data.batches`, which knows when a latency is measured.
"""

# DALI makes most of its names while it is imported, where no type checker sees them.
# mypy: disable-error-code="attr-defined,arg-type,call-overload,no-untyped-call"

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.plugin.pytorch import feed_ndarray
from torch import Tensor

from nas.data.augmentation import Augmentation
from nas.data.batches import Batches, Waited
from nas.data.dataset import IGNORE, Dataset
from nas.data.plan import EpochPlan
from nas.data.sample import Pair
from nas.data.windows import PADDING, Window

_PARAMETERS = ("start", "shape", "flip", "mean", "std")
_OF_RESIZING = ("label_start", "label_end")


class DaliLoader:
    """A nas.data.loader.Loader on DALI."""

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
    ) -> None:
        self.waited = Waited()
        self._plan = EpochPlan(dataset, split, batch_size, augmentation, seed, threads)
        self._device = torch.device(device)
        self._threads = threads
        self._stream = torch.cuda.Stream(self._device) if self._device.type == "cuda" else None
        self._pipelines: dict[bool, Pipeline] = {}  # with and without a resizing

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int, most: int | None = None) -> Batches:
        """See nas.data.loader.Loader."""
        return Batches(self._plan.epoch(number, most), functools.partial(self._batch, number), self.waited)

    def _batch(self, epoch: int, indices: list[int]) -> tuple[Tensor, Tensor]:
        samples = self._plan.samples(epoch, indices)
        resized = any((window.height, window.width) != self._plan.output for _, window in samples)
        if resized not in self._pipelines:
            self._pipelines[resized] = _pipeline(self._plan, self._device, self._threads, resized=resized)
        pipeline = self._pipelines[resized]
        _feed(pipeline, samples, self._plan.output, resized=resized)
        images, labels = pipeline.run()
        # DALI reuses its buffers, so the batch is copied out. On a GPU by a stream of its own, since a step may be
        # under way, and to its end, since nothing may be when a latency is measured.
        with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
            image_batch = torch.empty((len(indices), 3, *self._plan.output), device=self._device)
            label_batch = torch.empty((len(indices), *self._plan.output), dtype=torch.uint8, device=self._device)
            feed_ndarray(images.as_tensor(), image_batch, cuda_stream=self._stream)
            feed_ndarray(labels.as_tensor(), label_batch, cuda_stream=self._stream)
            label_batch = label_batch.long()
        if self._stream:
            self._stream.synchronize()
            for each in (image_batch, label_batch):
                each.record_stream(torch.cuda.default_stream(self._device))
        return image_batch, label_batch


def _pipeline(plan: EpochPlan, device: torch.device, threads: int, *, resized: bool) -> Pipeline:
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
        image, label = (
            fn.external_source(name=name, dtype=types.UINT8, ndim=3, layout="HWC", no_copy=True)
            for name in ("image", "label")
        )
        given = {name: fn.external_source(name=name) for name in (*_PARAMETERS, *(_OF_RESIZING if resized else ()))}
        size = plan.output if resized else None
        shown = _show_image(image.gpu() if on_gpu else image, given, size), _show_label(label, given, size)
        pipeline.set_outputs(shown[0], shown[1].gpu() if on_gpu else shown[1])
    pipeline.build()
    return pipeline


def _show_image(image: Any, given: dict[str, Any], size: tuple[int, int] | None) -> Any:
    """Image (H, W, 3) -> normalised float (3, h, w); windows are resized where there is a `size`."""
    shown = fn.slice(
        image, given["start"], given["shape"], axes=(0, 1), out_of_bounds_policy="pad", fill_values=PADDING
    )
    if size:
        shown = fn.resize(shown, size=size, interp_type=types.INTERP_LINEAR, antialias=True, dtype=types.FLOAT)
    return fn.crop_mirror_normalize(
        shown, mirror=given["flip"], mean=given["mean"], std=given["std"], dtype=types.FLOAT, output_layout="CHW"
    )


def _show_label(label: Any, given: dict[str, Any], size: tuple[int, int] | None) -> Any:
    """Classes (H, W, 1) -> uint8 (h, w)."""
    shown = fn.slice(label, given["start"], given["shape"], axes=(0, 1), out_of_bounds_policy="pad", fill_values=IGNORE)
    if size:
        region = {"roi_start": given["label_start"], "roi_end": given["label_end"]}
        shown = fn.resize(shown, size=size, interp_type=types.INTERP_NN, **region)
    return fn.squeeze(fn.flip(shown, horizontal=given["flip"]), axes=2)


def _feed(pipeline: Pipeline, samples: Sequence[tuple[Pair, Window]], size: tuple[int, int], *, resized: bool) -> None:
    pipeline.feed_input("image", [pair.image for pair, _ in samples])
    pipeline.feed_input("label", [pair.label[..., None] for pair, _ in samples])
    windows = [window for _, window in samples]
    shape = np.array([(window.height, window.width) for window in windows], dtype=np.float32)
    parameters = {
        "start": np.array([(window.top, window.left) for window in windows], dtype=np.int32),
        "shape": shape.astype(np.int32),
        "flip": np.array([window.flip for window in windows], dtype=np.int32),
        "mean": np.array([window.mean for window in windows], dtype=np.float32),
        "std": np.array([window.std for window in windows], dtype=np.float32),
    }
    if resized:
        # Where a centre falls exactly between two pixels, float arithmetic may take either: a nudge of less than any
        # other distance to a border makes it the right one, as `nearest_indices` does.
        nudge = np.float32(0.25) / np.array(size, dtype=np.float32)
        parameters |= {"label_start": np.broadcast_to(nudge, shape.shape).copy(), "label_end": shape + nudge}
    for name, values in parameters.items():
        pipeline.feed_input(name, values)
