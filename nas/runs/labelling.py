"""The meaning of a network's outputs, and the file names of a trained network.

Classes, their colours and the input size are stored in the metadata of the weights file, so that networks from
`nas train` and `nas search` can be used without naming the data set again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.data import IGNORE, MEAN, STD
from nas.data.dataset import SIZE_LIMITS
from nas.data.pictures import distinct_colours
from space import Architecture, UserError

if TYPE_CHECKING:
    from nas.data import Dataset

ARCHITECTURE = "architecture.yaml"
WEIGHTS = "weights.safetensors"
TRAINED_WEIGHTS = "trained.safetensors"  # weights before parallel paths are folded into one convolution


@dataclass(frozen=True, kw_only=True)
class Labelling:
    """The meaning of a network's outputs: class names, an RGB colour for each, the input size and the data that it was
    trained on, and the value of each class in the label images of these data; no values where they are unknown.
    """

    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    size: tuple[int, int]
    data: str
    label_values: tuple[int, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset) -> Labelling:
        """The labelling of a data set."""
        return cls(
            classes=dataset.classes,
            palette=dataset.palette,
            size=dataset.size,
            data=dataset.name,
            label_values=dataset.label_values,
        )

    @classmethod
    def unnamed(cls, num_classes: int, size: tuple[int, int]) -> Labelling:
        """A labelling for weights without metadata: classes are named by numbers."""
        names = tuple(f"class {index}" for index in range(num_classes))
        return cls(classes=names, palette=distinct_colours(num_classes), size=size, data="unknown")


def metadata(architecture: Architecture, labelling: Labelling) -> dict[str, str]:
    """The metadata of a weights file."""
    values = {"label_values": json.dumps(labelling.label_values)} if labelling.label_values else {}
    return {
        "architecture": architecture.key,
        "data": labelling.data,
        "classes": json.dumps(labelling.classes),
        "palette": json.dumps(labelling.palette),
        "size": f"{labelling.size[0]}x{labelling.size[1]}",
        "mean": json.dumps(MEAN),
        "std": json.dumps(STD),
        **values,
    }


def read_labelling(words: Mapping[str, str], source: Path) -> Labelling | None:
    """The labelling in the metadata of the weights file `source`; None where there is none.

    Raises: UserError when it is incomplete or contradicts itself.
    """
    if "classes" not in words:
        return None
    try:
        classes: Any = json.loads(words["classes"])
        palette: Any = json.loads(words["palette"])
        found = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", words["size"])
        if not (isinstance(classes, list) and isinstance(palette, list) and len(classes) == len(palette)):
            raise ValueError("classes and palette contradict each other")
        if not (1 <= len(classes) <= IGNORE and all(isinstance(name, str) for name in classes)):
            raise ValueError(f"there are 1 to {IGNORE} class names")
        if not all(type(channel) is int and 0 <= channel <= 255 for colour in palette for channel in colour):
            raise ValueError("colours are numbers from 0 to 255")
        values: Any = json.loads(words.get("label_values", "[]"))
        if not (isinstance(values, list) and len(values) in (0, len(classes)) and len({*values}) == len(values)):
            raise ValueError("every class has a label value of its own")
        if not all(type(value) is int and 0 <= value <= 255 for value in values):
            raise ValueError("label values are numbers from 0 to 255")
        size = (int(found[1]), int(found[2])) if found else (0, 0)
        if not SIZE_LIMITS[0] <= min(size) <= max(size) <= SIZE_LIMITS[1]:
            raise ValueError(f"the size is {words['size'][:20]!r}")
        colours = tuple((red, green, blue) for red, green, blue in palette)
        return Labelling(
            classes=tuple(classes), palette=colours, size=size, data=words["data"], label_values=tuple(values)
        )
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{source}: expected metadata with classes, palette, size and data as `nas train` writes them ({error}); "
            "write the weights again"
        ) from None
