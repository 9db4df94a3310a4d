"""Reading pictures and labels, and refusing bad ones by name.

Labels are ids, never colours: palette PNGs are read as their indices, and grey PNGs with 1, 2 or 4 bits per pixel
as the values that are stored, which Pillow would stretch to 0..255.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.cores import usable_cores
from nas.data.dataset import IGNORE, ILLEGAL, Dataset, Split
from space.errors import DataError

CACHE_BYTES = 512 * 2**20
"""How much of a split is kept in memory as encoded files; the rest is read again in every epoch."""

_STRETCH = {1: 1, 2: 85, 4: 17}
"""Bits per pixel of a grey PNG -> what Pillow multiplies its values by (1 bit becomes False and True)."""

Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One sample as both loaders take it: an RGB or grey JPEG or PNG, and its raw label as 8-bit grey PNG."""

    image: bytes
    label: bytes
    size: tuple[int, int]
    """Height and width in pixels."""


def read_image(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The picture at height and width `size` (bilinear, antialiased; None keeps its own), uint8 (H, W, 3).

    Raises: DataError when the file is missing, unreadable or truncated.
    """
    image = Image.fromarray(decode_image(_bytes(path), path))
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(image)  # (H, W, 3)


def read_label(dataset: Dataset, path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The classes at height and width `size` (nearest; None keeps the label's own), uint8 (H, W), void = IGNORE.

    Raises: DataError when the file is missing, unreadable or truncated, or holds values that are no class.
    """
    raw = decode_label(_bytes(path), path)
    mapped = np.asarray(dataset.label_map, dtype=np.int16)[raw]
    if (mapped == ILLEGAL).any():
        values = ", ".join(str(value) for value in np.unique(raw[mapped == ILLEGAL])[:5])
        raise DataError(
            f"{path}: expected label values 0 to {dataset.num_classes - 1} or void, got {values}; "
            f"correct the label, or the class list of {dataset.name}"
        )
    label = mapped.astype(np.uint8)
    if size is None or size == label.shape:
        return label
    return label[np.ix_(nearest_indices(label.shape[0], size[0]), nearest_indices(label.shape[1], size[1]))]


def nearest_indices(source: int, target: int) -> NDArray[np.intp]:
    """For each of `target` pixels the one of `source` pixels under its centre, in exact integer arithmetic."""
    return (2 * np.arange(target) + 1) * source // (2 * target)


def check(dataset: Dataset) -> None:
    """Opens and decodes every image and label.

    Raises: DataError naming the first file that is missing, unreadable, truncated, not of its partner's size, or that
    holds a label value that is no class; and when a split is empty.
    """
    for name in ("train", "validation"):
        split = dataset.split(name)
        if not len(split):
            raise DataError(f"{dataset.name}: the {name} split is empty; expected at least one image with its label")

        def check_one(pair: tuple[Path, Path]) -> None:
            image, label = read_image(pair[0], None), read_label(dataset, pair[1], None)
            _same_size(pair, image.shape[:2], label.shape)

        _in_threads(check_one, zip(split.images, split.labels, strict=True))


def class_shares(dataset: Dataset) -> NDArray[np.float64]:
    """Share of each class in the labelled pixels of the train split, (C,); void counts neither above nor below.

    Raises: DataError when a label file is bad, or labels are void everywhere.
    """

    def count(path: Path) -> NDArray[np.int64]:
        return np.bincount(read_label(dataset, path, None).ravel(), minlength=256)[: dataset.num_classes]

    pixels = np.sum(_in_threads(count, dataset.train.labels), axis=0)
    if not pixels.sum():
        raise DataError(f"{dataset.name}: every label of the train split is void everywhere; expected some classes")
    return np.asarray(pixels / pixels.sum(), dtype=np.float64)


class SampleFiles:
    """The encoded files of one split by index, kept in memory while they fit into CACHE_BYTES.

    Asking for one raises DataError when a file is missing or unreadable, or the two differ in size.
    """

    def __init__(self, split: Split) -> None:
        self._split = split
        self._kept: dict[int, Encoded] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Encoded:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = _encoded(self._split.images[index], self._split.labels[index])
        if self._kept_bytes < CACHE_BYTES:
            self._kept_bytes += len(sample.image) + len(sample.label)
            self._kept[index] = sample
        return sample

    def paths(self, index: int) -> tuple[Path, Path]:
        """The image and the label of a sample, for messages."""
        return self._split.images[index], self._split.labels[index]


def decode_image(data: bytes, path: Path) -> NDArray[np.uint8]:
    """The pixels of an encoded picture, uint8 (H, W, 3); `path` is for messages.

    Raises: DataError when it is unreadable, truncated or has more than 8 bits per colour.
    """
    image = _open(data, path)
    if image.mode.startswith(("I", "F")):
        raise DataError(f"{path}: expected 8 bits per colour, got mode {image.mode}; save it as 8-bit RGB")
    return np.array(_pixels(image, path).convert("RGB"))


def decode_label(data: bytes, path: Path) -> NDArray[np.uint8]:
    """The raw values of an encoded label, uint8 (H, W); `path` is for messages.

    Raises: DataError when it is unreadable, truncated, in colours or holds values above 255.
    """
    label = _open(data, path)
    if label.mode not in ("1", "L", "P") and not label.mode.startswith("I"):
        raise DataError(
            f"{path}: expected label values as a grey or palette PNG, got a picture of mode {label.mode}; "
            "replace every colour by the value of its class"
        )
    values = np.array(_pixels(label, path))
    if label.mode == "L":
        values = values // _STRETCH.get(_png_grey_bits(data), 1)
    if values.size and values.max() > IGNORE:
        raise DataError(f"{path}: expected label values up to {IGNORE}, got {values.max()}; correct the label")
    return values.astype(np.uint8)


def _encoded(image_path: Path, label_path: Path) -> Encoded:
    """Both files, re-encoded only where DALI would read them differently from Pillow."""
    image_data, label_data = _bytes(image_path), _bytes(label_path)
    image, label = _open(image_data, image_path), _open(label_data, label_path)
    _same_size((image_path, label_path), image.size[::-1], label.size[::-1])
    if image.mode not in ("RGB", "L") or image.format not in ("JPEG", "PNG") or _png_grey_bits(image_data) in _STRETCH:
        image_data = _png(decode_image(image_data, image_path))
    if label.mode != "L" or label.format != "PNG" or _png_grey_bits(label_data) in _STRETCH:
        label_data = _png(decode_label(label_data, label_path))
    return Encoded(image=image_data, label=label_data, size=(image.size[1], image.size[0]))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _png_grey_bits(data: bytes) -> int:
    """Bits per pixel of a PNG without colour, from its header (PNG specification, 11.2.1); 0 for other files."""
    is_grey_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[12:16] == b"IHDR" and data[25] == 0
    return data[24] if is_grey_png else 0


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; restore it, or remove its partner too") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error


def _open(data: bytes, path: Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise DataError(f"{path} is no readable JPEG or PNG ({len(data)} bytes); fetch or export it again") from None


def _pixels(image: Image.Image, path: Path) -> Image.Image:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path} is damaged or cut short ({error}); fetch or export it again") from None
    return image


def _same_size(pair: tuple[Path, Path], image: tuple[int, ...], label: tuple[int, ...]) -> None:
    if image != label:
        raise DataError(
            f"{pair[1]}: expected the size of its image {pair[0].name}, {image[0]}x{image[1]} (HxW), "
            f"got {label[0]}x{label[1]}; export the label again at the image's size"
        )


def _in_threads(work: Callable[..., Result], items: Iterable[object]) -> list[Result]:
    """Results in order; the first failure in that order is raised. Pillow decodes outside Python's lock."""
    with ThreadPoolExecutor(max_workers=usable_cores()) as pool:
        try:
            return list(pool.map(work, items))
        except DataError:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
