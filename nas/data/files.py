"""The files of a data set as both loaders and everybody else read them, and refusing bad ones by name."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.dataset import ILLEGAL, Dataset
from nas.data.decoding import RawLabel, decode_label, decode_picture, encode, plain_image, plain_label
from space.errors import DataError

CACHE_BYTES = 512 * 2**20
"""How much of a split is kept in memory as encoded files; the rest is read again in every epoch."""

MOST_BYTES = 512 * 2**20
"""Of one file: more than the largest picture that is decoded takes as it is in memory."""


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One sample as both loaders take it: an upright RGB or grey JPEG or PNG, and its raw label as 8-bit grey PNG."""

    image: bytes
    label: bytes
    size: tuple[int, int]
    """Height and width in pixels."""


def read_bytes(path: Path) -> bytes:
    """What is in a file.

    Raises: DataError when it is missing, unreadable, too large for a picture, or no file: a pipe would wait for ever.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path}: expected a file, got a folder or a device; remove it")
        if status.st_size > MOST_BYTES:
            raise DataError(
                f"{path}: expected a picture of at most {MOST_BYTES} bytes, got {status.st_size}; shrink it"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing; restore it, or remove its partner too") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error


def read_image(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The picture, upright, at height and width `size` (bilinear, antialiased; None keeps its own), uint8 (H, W, 3).

    Raises: DataError when the file is missing, unreadable or truncated.
    """
    image = Image.fromarray(decode_picture(read_bytes(path), path).pixels)
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(image)  # (H, W, 3)


def read_label(dataset: Dataset, path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The classes at height and width `size` (nearest; None keeps the label's own), uint8 (H, W), void = IGNORE.

    Raises: DataError when the file is missing, unreadable or truncated, or holds values that are no class.
    """
    label = classes_of(dataset, decode_label(read_bytes(path), path, dataset.label_colours), path)
    if size is None or size == label.shape:
        return label
    return label[np.ix_(nearest_indices(label.shape[0], size[0]), nearest_indices(label.shape[1], size[1]))]


def classes_of(dataset: Dataset, raw: RawLabel, path: Path) -> NDArray[np.uint8]:
    """The classes (H, W) that the values of a label mean, void = IGNORE; `path` is for messages.

    Raises: DataError for values that are no class, and where the colours of a palette contradict its values.
    """
    mapped = np.asarray(dataset.label_map, dtype=np.int16)
    occurring = np.flatnonzero(np.bincount(raw.values.ravel(), minlength=256))
    illegal = [int(value) for value in occurring if mapped[value] == ILLEGAL]
    if illegal:
        advice = f"correct the label, or the class list of {dataset.name}"
        if illegal == [dataset.num_classes] and mapped[0] == 0:
            advice += ", where 0 may stand for void (void: 0 in classes.yaml)"
        raise DataError(
            f"{path}: expected label values {_expected(dataset)}, got {', '.join(map(str, illegal[:5]))}; {advice}"
        )
    known = {colour: value for value, colour in enumerate(dataset.label_colours)}
    for value, colour in raw.palette:
        if colour in known and known[colour] != value and mapped[known[colour]] != mapped[value]:
            raise DataError(
                f"{path}: expected palette entry {value} in the colour that the class list gives it, got that of "
                f"value {known[colour]}; save the label as RGB if its colours are right, or as grey if its values are"
            )
    return mapped[raw.values].astype(np.uint8)


def nearest_indices(source: int, target: int) -> NDArray[np.intp]:
    """For each of `target` pixels the one of `source` pixels under its centre, in exact integer arithmetic."""
    return (2 * np.arange(target) + 1) * source // (2 * target)


def check_same_size(pair: tuple[Path, Path], image: tuple[int, ...], label: tuple[int, ...], orientation: int) -> None:
    """That a label has the height and width of its upright image, whose EXIF said `orientation`.

    Raises: DataError with what the difference looks like.
    """
    if image == label:
        return
    advice = "export the label again at the image's size"
    if image == label[::-1]:
        advice = "height and width are swapped: turn the label"
        if orientation > 4:
            advice = (
                f"the image's EXIF asks to turn it (orientation {orientation}) and viewers do, this label is of the "
                "picture as it is stored: turn the label, or save the image without that tag"
            )
    raise DataError(
        f"{pair[1]}: expected the size of its image {pair[0].name}, {image[0]}x{image[1]} (HxW), "
        f"got {label[0]}x{label[1]}; {advice}"
    )


class SampleFiles:
    """The encoded files of one split by index, kept in memory while they fit into CACHE_BYTES.

    Asking for one raises DataError when a file is missing or unreadable, or the two differ in size.
    """

    def __init__(self, dataset: Dataset, split: Literal["train", "validation"]) -> None:
        self._split = dataset.split(split)
        self._colours = dataset.label_colours
        self._kept: dict[int, Encoded] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._split)

    def __getitem__(self, index: int) -> Encoded:
        kept = self._kept.get(index)
        if kept is not None:
            return kept
        sample = self._encoded(index, decoded=False)
        self._keep(index, sample)
        return sample

    def paths(self, index: int) -> tuple[Path, Path]:
        """The image and the label of a sample, for messages."""
        return self._split.images[index], self._split.labels[index]

    def decode(self, index: int) -> None:
        """Give a sample as our decoder reads it from now on, for a decoder that could not read the file itself.

        Raises: DataError when ours cannot either.
        """
        self._keep(index, self._encoded(index, decoded=True), always=True)

    def _keep(self, index: int, sample: Encoded, *, always: bool = False) -> None:
        if always or self._kept_bytes < CACHE_BYTES:
            self._kept_bytes += len(sample.image) + len(sample.label)
            self._kept[index] = sample

    def _encoded(self, index: int, *, decoded: bool) -> Encoded:
        """Both files; re-encoded where another decoder might read them differently, or where `decoded` says so."""
        image_path, label_path = self.paths(index)
        image, label = read_bytes(image_path), read_bytes(label_path)
        orientation = 1
        size = None if decoded else plain_image(image, image_path)
        if size is None:
            picture = decode_picture(image, image_path)
            orientation, pixels = picture.orientation, picture.pixels
            size, image = (pixels.shape[0], pixels.shape[1]), encode(pixels)
        label_size = None if decoded else plain_label(label, label_path)
        if label_size is None:
            values = decode_label(label, label_path, self._colours).values
            label_size, label = (values.shape[0], values.shape[1]), encode(values)
        check_same_size((image_path, label_path), size, label_size, orientation)
        return Encoded(image=image, label=label, size=size)


def _expected(dataset: Dataset) -> str:
    values = [value for value, label in enumerate(dataset.label_map) if 0 <= label < dataset.num_classes]
    contiguous = values == list(range(values[0], values[-1] + 1))
    return f"{values[0]} to {values[-1]} or void" if contiguous else "of the classes or void"
