"""One image with its label: the decoded pixels, and findings on them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.dataset import Dataset
from nas.data.decoding import Convention, Picture, RawLabel, decode_label, decode_picture
from nas.data.files import check_same_size, classes_of, read_bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """The pixels of one sample."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB, upright."""
    label: NDArray[np.uint8]
    """(H, W), classes, void = IGNORE."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.label.shape[0], self.label.shape[1]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Findings on one image with its label."""

    label_path: Path
    size: tuple[int, int]
    """Height and width of the upright image, in pixels."""
    orientation: int
    convention: Convention
    palette: tuple[tuple[int, tuple[int, int, int]], ...]
    pixels: tuple[int, ...]
    """Number of labelled pixels of each class, (C,)."""
    values: tuple[int, ...]
    """Label values that occur, as stored."""
    image_digest: str
    label_digest: str


def decode_pair(dataset: Dataset, image_path: Path, label_path: Path) -> Pair:
    """Read and decode both files.

    Raises: DataError naming the file that is missing, unreadable, truncated, not of its counterpart's size, or holds a
    label value that belongs to no class.
    """
    return _decoded(dataset, image_path, read_bytes(image_path), label_path)[0]


def decode_sample(dataset: Dataset, image_path: Path, label_path: Path) -> tuple[Pair, Sample]:
    """Read and decode both files, and describe their contents.

    Raises: DataError as `decode_pair` does.
    """
    image_data = read_bytes(image_path)
    pair, picture, raw = _decoded(dataset, image_path, image_data, label_path)
    sample = Sample(
        label_path=label_path,
        size=pair.size,
        orientation=picture.orientation,
        convention=raw.convention,
        palette=raw.palette,
        pixels=pixels_of_classes(dataset, pair.label),
        values=tuple(np.flatnonzero(np.bincount(raw.values.ravel(), minlength=256)).tolist()),
        image_digest=digest([image_data]),
        label_digest=digest([str(pair.label.shape).encode(), pair.label.tobytes()]),
    )
    return pair, sample


def pixels_of_classes(dataset: Dataset, label: NDArray[np.uint8]) -> tuple[int, ...]:
    """Number of pixels of each class in a label (H, W), (C,)."""
    return tuple(np.bincount(label.ravel(), minlength=256)[: dataset.num_classes].tolist())


def _decoded(dataset: Dataset, image_path: Path, image_data: bytes, label_path: Path) -> tuple[Pair, Picture, RawLabel]:
    picture = decode_picture(image_data, image_path)
    raw = decode_label(read_bytes(label_path), label_path, dataset.label_colours)
    pair = Pair(image=picture.pixels, label=classes_of(dataset, raw, label_path))
    check_same_size((image_path, label_path), picture.pixels.shape[:2], pair.label.shape, picture.orientation)
    return pair, picture, raw


def digest(parts: Iterable[bytes]) -> str:
    """Digest of bytes, in hexadecimal digits."""
    hashed = hashlib.blake2b(digest_size=16)
    for part in parts:
        hashed.update(part)
    return hashed.hexdigest()
