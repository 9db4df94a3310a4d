"""Reading the files of a data set, for both loaders and everything else; bad files are refused by name."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nas.data.dataset import ILLEGAL, Dataset
from nas.data.decoding import RawLabel, decode_label, decode_picture
from nas.errors import DataError

MOST_BYTES = 512 * 2**20
"""Most bytes of one file: more than the largest decodable picture takes uncompressed."""


def read_bytes(path: Path) -> bytes:
    """The contents of a file.

    Raises: DataError when it is missing, unreadable, too large for a picture, or not a regular file: reading a pipe
    would wait for ever.
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
        raise DataError(f"{path} is missing; restore it, or remove the image or label that belongs to it") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); check the file and its permissions") from error


def read_image(path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The upright picture, uint8 (H, W, 3), resized to height and width `size` (bilinear, antialiased); None: as it is.

    Raises: DataError when the file is missing, unreadable or truncated.
    """
    image = Image.fromarray(decode_picture(read_bytes(path), path).pixels)
    if size is not None and image.size != (size[1], size[0]):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.array(image)  # (H, W, 3)


def read_label(dataset: Dataset, path: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """The classes of a label, uint8 (H, W), void = IGNORE, at height and width `size` (nearest); None: as it is.

    Raises: DataError when the file is missing, unreadable or truncated, or holds values that belong to no class.
    """
    label = classes_of(dataset, decode_label(read_bytes(path), path, dataset.label_colours), path)
    if size is None or size == label.shape:
        return label
    return label[np.ix_(nearest_indices(label.shape[0], size[0]), nearest_indices(label.shape[1], size[1]))]


def classes_of(dataset: Dataset, raw: RawLabel, path: Path) -> NDArray[np.uint8]:
    """The classes (H, W) that the values of a label stand for, void = IGNORE; `path` is used in messages.

    Raises: DataError for values that belong to no class, and if the colours of a palette contradict its values.
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
                f"{path}: expected palette entry {value} to have its colour in the class list, got the colour of "
                f"value {known[colour]}; save the label as RGB if its colours are right, or as grey if its values are"
            )
    return mapped[raw.values].astype(np.uint8)


def nearest_indices(source: int, target: int) -> NDArray[np.intp]:
    """For each of `target` pixels, the index of the one of `source` pixels under its centre, in exact integers."""
    return (2 * np.arange(target) + 1) * source // (2 * target)


def check_same_size(pair: tuple[Path, Path], image: tuple[int, ...], label: tuple[int, ...], orientation: int) -> None:
    """Check that a label has the height and width of its upright image, whose EXIF orientation is `orientation`.

    Raises: DataError that explains the difference.
    """
    if image == label:
        return
    advice = "export the label again at the image's size"
    if image == label[::-1]:
        advice = "height and width are swapped: turn the label"
        if orientation > 4:
            advice = (
                f"the image's EXIF makes viewers turn it (orientation {orientation}), but the label fits the picture "
                "as it is stored: turn the label, or save the image without that tag"
            )
    raise DataError(
        f"{pair[1]}: expected the size of its image {pair[0].name}, {image[0]}x{image[1]} (HxW), "
        f"got {label[0]}x{label[1]}; {advice}"
    )


def _expected(dataset: Dataset) -> str:
    values = [value for value, label in enumerate(dataset.label_map) if 0 <= label < dataset.num_classes]
    contiguous = values == list(range(values[0], values[-1] + 1))
    return f"{values[0]} to {values[-1]} or void" if contiguous else "of the classes or void"
