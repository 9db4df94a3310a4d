"""The loader on NVIDIA DALI: the same windows as the reference loader, decoded and resized on the CPU or a GPU.

The pipeline is fed one batch at a time and run synchronously: DALI keeps no state between batches, an epoch can
start anywhere, and nothing runs in the background while somebody measures a latency.
"""

# DALI makes most of its names while it is imported, where no type checker sees them.
# mypy: disable-error-code="attr-defined,arg-type,call-overload,no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from nvidia.dali import Pipeline, fn, types
from nvidia.dali.plugin.pytorch import feed_ndarray
from torch import Tensor

from nas.data.augmentation import Augmentation
from nas.data.dataset import IGNORE, ILLEGAL, Dataset
from nas.data.files import Encoded
from nas.data.plan import EpochPlan
from nas.data.windows import PADDING, Window

_BYTES = ("image", "label")
_PARAMETERS = ("start", "shape", "label_start", "label_end", "flip", "mean", "std")


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
        self._plan = EpochPlan(dataset, split, batch_size, augmentation, seed)
        self._device = torch.device(device)
        self._threads = threads
        self._pipeline = _pipeline(self._plan, self._device, threads)

    def __len__(self) -> int:
        return len(self._plan)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See nas.data.loader.Loader."""
        for indices in self._plan.epoch(number):
            try:
                images, labels = self._run(number, indices)
            except RuntimeError:
                # What the check reads is what counts: the pictures come from its decoder, if that can read them. A
                # pipeline that has failed runs no more.
                self._plan.decode(indices)
                self._pipeline = _pipeline(self._plan, self._device, self._threads)
                images, labels = self._run(number, indices)
            # DALI reuses its buffers, so the batch is copied out.
            image_batch = torch.empty((len(indices), 3, *self._plan.output), device=self._device)
            label_batch = torch.empty((len(indices), *self._plan.output), dtype=torch.int64, device=self._device)
            stream = torch.cuda.current_stream(self._device) if self._device.type == "cuda" else None
            feed_ndarray(images.as_tensor(), image_batch, cuda_stream=stream)
            feed_ndarray(labels.as_tensor(), label_batch, cuda_stream=stream)
            if (label_batch == ILLEGAL).any():
                self._plan.explain(indices)
            yield image_batch, label_batch

    def _run(self, epoch: int, indices: list[int]) -> tuple[Any, Any]:
        """Images and labels of a batch, in DALI's buffers."""
        _feed(self._pipeline, [self._plan.sample(epoch, index) for index in indices], self._plan.output)
        images, labels = self._pipeline.run()
        return images, labels


def _pipeline(plan: EpochPlan, device: torch.device, threads: int) -> Pipeline:
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
        data = {name: fn.external_source(name=name, dtype=types.UINT8, ndim=1) for name in _BYTES}
        given = {name: fn.external_source(name=name) for name in _PARAMETERS}
        # Pictures come upright. Pillow knows no plain chroma upsampling, and both loaders must see the same pixels.
        decoder = {"adjust_orientation": False, "jpeg_fancy_upsampling": True}
        image = fn.decoders.image(data["image"], device="mixed" if on_gpu else "cpu", output_type=types.RGB, **decoder)
        label = fn.decoders.image(data["label"], device="cpu", output_type=types.GRAY, **decoder)
        pipeline.set_outputs(_show_image(image, given, plan.output), _show_label(label, given, plan, on_gpu))
    pipeline.build()
    return pipeline


def _show_image(image: Any, given: dict[str, Any], size: tuple[int, int]) -> Any:
    """Decoded image (H, W, 3) -> normalised float (3, h, w)."""
    cut = fn.slice(image, given["start"], given["shape"], axes=(0, 1), out_of_bounds_policy="pad", fill_values=PADDING)
    resized = fn.resize(cut, size=size, interp_type=types.INTERP_LINEAR, antialias=True, dtype=types.FLOAT)
    return fn.crop_mirror_normalize(
        resized, mirror=given["flip"], mean=given["mean"], std=given["std"], dtype=types.FLOAT, output_layout="CHW"
    )


def _show_label(label: Any, given: dict[str, Any], plan: EpochPlan, on_gpu: bool) -> Any:
    """Decoded label (H, W, 1) -> classes, int64 (h, w)."""
    cut = fn.slice(label, given["start"], given["shape"], axes=(0, 1), out_of_bounds_policy="pad", fill_values=IGNORE)
    region = {"roi_start": given["label_start"], "roi_end": given["label_end"]}
    resized = fn.resize(cut, size=plan.output, interp_type=types.INTERP_NN, **region)
    flipped = fn.squeeze(fn.flip(resized, horizontal=given["flip"]), axes=2)
    classes = fn.lookup_table(
        flipped, keys=list(range(256)), values=list(plan.dataset.label_map), default_value=ILLEGAL, dtype=types.INT64
    )
    return classes.gpu() if on_gpu else classes


def _feed(pipeline: Pipeline, samples: list[tuple[Encoded, Window]], size: tuple[int, int]) -> None:
    for name in _BYTES:
        pipeline.feed_input(name, [np.frombuffer(getattr(encoded, name), dtype=np.uint8) for encoded, _ in samples])
    windows = [window for _, window in samples]
    shape = np.array([(window.height, window.width) for window in windows], dtype=np.float32)
    # Where a centre falls exactly between two pixels, float arithmetic may take either: a nudge of less than any
    # other distance to a border makes it the right one, as `nearest_indices` does.
    nudge = np.float32(0.25) / np.array(size, dtype=np.float32)
    parameters = {
        "start": np.array([(window.top, window.left) for window in windows], dtype=np.int32),
        "shape": shape.astype(np.int32),
        "label_start": np.broadcast_to(nudge, shape.shape).copy(),
        "label_end": shape + nudge,
        "flip": np.array([window.flip for window in windows], dtype=np.int32),
        "mean": np.array([window.mean for window in windows], dtype=np.float32),
        "std": np.array([window.std for window in windows], dtype=np.float32),
    }
    for name, values in parameters.items():
        pipeline.feed_input(name, values)
