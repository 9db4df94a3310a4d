"""Float32 that is computed as float32."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def in_float32() -> Iterator[None]:
    """Inside, convolutions in float32 read all 24 bits of it on a GPU too, where cuDNN would round to the 11 of TF32
    (from Ampere on). Its other settings, and products of matrices, which torch does not round so, stay as they are.

    Scores, labels and statistics are computed so. Steps of training and timings are as torch has them.
    """
    before = _rounds(False)
    try:
        yield
    finally:
        _rounds(before)


def _rounds(allowed: bool) -> bool:
    """Whether it might until now."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 announces another name for it
        before: bool = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = allowed
    return before
