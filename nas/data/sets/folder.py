"""Any images with label PNGs and a list of classes.

    classes.txt                 one class name per line, in the order of the label values 0, 1, 2, ...
    classes.yaml                or this: classes: [road, car]; optionally void: 9 and colours: ["#804080", "#00008e"]
    train/images  train/labels  NAME.jpg or NAME.png, and NAME.png of 8-bit grey or palette values
    val/images    val/labels

The label value 255 is void, and so is the one that classes.yaml names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nas.data.dataset import IGNORE, Dataset, DataSpec, label_map
from nas.data.pairing import pair_folders, root_of, thin
from nas.data.pictures import distinct_colours
from space import strict
from space.errors import DataError


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """What classes.yaml says.

    Raises: DataError when its parts contradict each other or are out of range.
    """

    classes: tuple[str, ...]
    void: int = IGNORE
    colours: tuple[str, ...] | None = None
    """One "#rrggbb" per class; None gives every class a colour of its own."""

    def __post_init__(self) -> None:
        count = len(self.classes)
        if not 2 <= count <= IGNORE:
            raise DataError(f"classes: expected 2 to {IGNORE} names, got {count}")
        repeated = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if repeated:
            raise DataError(f"classes: expected different names, got '{repeated[0]}' more than once")
        if not count <= self.void <= IGNORE:
            raise DataError(
                f"void: expected a value from {count} to {IGNORE} (0 to {count - 1} are classes), got {self.void}"
            )
        if self.colours is not None and len(self.colours) != count:
            raise DataError(f"colours: expected one for each of the {count} classes, got {len(self.colours)}")
        for colour in self.colours or ():
            if not re.fullmatch("#[0-9a-fA-F]{6}", colour):
                raise DataError(f'colours: expected "#rrggbb", got "{colour}"')

    @property
    def palette(self) -> tuple[tuple[int, int, int], ...]:
        """One RGB colour (0..255) per class."""
        if self.colours is None:
            return distinct_colours(len(self.classes))
        channels = [bytes.fromhex(colour[1:]) for colour in self.colours]
        return tuple((red, green, blue) for red, green, blue in channels)


def load(spec: DataSpec) -> Dataset:
    """The data set as its class list and folders say.

    Raises: DataError when root, a folder or the class list is missing, or a picture has no label or the reverse;
    UserError when classes.yaml has keys or types that it should not.
    """
    root = root_of(spec, "classes.txt, train/images, train/labels, val/images and val/labels")
    listed = _read_classes(root)
    return Dataset(
        name=spec.name,
        classes=listed.classes,
        palette=listed.palette,
        label_map=label_map(len(listed.classes), void=(listed.void,)),
        train=thin(pair_folders(root / "train" / "images", root / "train" / "labels"), spec.train_images),
        validation=thin(pair_folders(root / "val" / "images", root / "val" / "labels"), spec.validation_images),
        size=spec.size,
    )


def _read_classes(root: Path) -> ClassList:
    as_yaml, as_text = root / "classes.yaml", root / "classes.txt"
    if as_yaml.is_file() and as_text.is_file():
        raise DataError(f"{as_yaml} and {as_text.name} both list the classes; remove one of them")
    if as_yaml.is_file():
        return strict.parse(_text(as_yaml), ClassList, str(as_yaml))
    if not as_text.is_file():
        raise DataError(f"{as_text} is missing; list the class names in it, one per line, in the order of label values")
    names = tuple(line.strip() for line in _text(as_text).splitlines() if line.strip())
    try:
        return ClassList(classes=names)
    except DataError as error:
        raise DataError(f"{as_text}: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 text ({error})") from error
