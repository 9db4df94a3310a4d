"""Float32 convolutions at full float32 precision."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_float32() -> Iterator[None]:
    """Context in which float32 convolutions use all 24 bits of precision on a GPU too, where cuDNN (from Ampere on)
    would round to the 11 bits of TF32. Other settings of cuDNN, and matrix products, which torch does not round like
    this, stay as they are.

    Scores, labels and statistics are computed in this context; training steps and timings keep torch's setting.
    """
    before = _allow_tf32(False)
    try:
        yield
    finally:
        _allow_tf32(before)


def _allow_tf32(allowed: bool) -> bool:
    """Set whether cuDNN may round to TF32; returns whether it might before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 announces a new name for the setting
        before: bool = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
    return before
