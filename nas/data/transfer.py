"""Copying batches to a device: from pinned memory, concurrently with the steps that run there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class Transfer:
    """Copies batches to a device. On the CPU they stay where they are."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        on_gpu = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]  # as torch has it

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor to fill and copy to the device, pinned for a GPU. Torch keeps its memory until the copy."""
        return torch.empty(*shape, dtype=dtype, pin_memory=self.stream is not None)

    def to_device(self, filled: Tensor) -> Tensor:
        """The tensor on the device; on a GPU the copy is queued behind earlier ones made `beside`, not waited for."""
        return filled.to(self.device, non_blocking=True)

    def beside(self) -> AbstractContextManager[object]:
        """Context in which work queued on a GPU does not wait for the steps that run there, until `arrived`."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def arrived(self, *batch: Tensor) -> None:
        """Wait for the queued work, which must not outlive a guard; after that, steps may use the `batch`."""
        if self.stream is not None:
            self.stream.synchronize()
            for each in batch:
                each.record_stream(torch.cuda.default_stream(self.device))
