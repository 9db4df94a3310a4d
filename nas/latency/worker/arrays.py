"""Arrays as plain values that can be sent in JSON."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

IMAGE = np.dtype("<f4")
LABELS = np.dtype("<i4")


def values_of(array: NDArray[Any], kind: np.dtype[Any]) -> dict[str, Any]:
    """The array's shape, and its values converted to `kind`, compressed and encoded as text."""
    content = np.ascontiguousarray(array, dtype=kind).tobytes()
    return {"shape": list(array.shape), "content": base64.b64encode(zlib.compress(content, 1)).decode("ascii")}


def array_of(values: Mapping[str, Any], kind: np.dtype[Any]) -> NDArray[Any]:
    """The array from its `values_of`; read-only.

    Raises: ValueError when the number of values does not fit the shape.
    """
    shape = tuple(int(length) for length in values["shape"])
    expected = int(np.prod(shape)) * kind.itemsize
    content = zlib.decompressobj().decompress(base64.b64decode(values["content"]), expected + 1)
    return np.frombuffer(content, dtype=kind).reshape(shape)
