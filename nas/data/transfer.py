"""Batches on their way to a device: out of pinned memory, beside the steps that are under way there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


class Transfer:
    """Brings batches to a device. On the CPU they stay where they are."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        on_gpu = device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]  # as torch has it

    def empty(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Memory to fill with what goes there, pinned for a GPU. Torch gives it to nobody else before it is copied."""
        return torch.empty(*shape, dtype=dtype, pin_memory=self.stream is not None)

    def to_device(self, filled: Tensor) -> Tensor:
        """It on the device; on a GPU after what was queued `beside` before, and not waited for."""
        return filled.to(self.device, non_blocking=True)

    def beside(self) -> AbstractContextManager[object]:
        """Inside, what is queued on a GPU waits for no step that is under way, until `arrived`."""
        return nullcontext() if self.stream is None else torch.cuda.stream(self.stream)

    def arrived(self, *batch: Tensor) -> None:
        """Wait for what was queued, which may not outlive a guard; steps may work on the `batch` then."""
        if self.stream is not None:
            self.stream.synchronize()
            for each in batch:
                each.record_stream(torch.cuda.default_stream(self.device))
