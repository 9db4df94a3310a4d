"""Cityscapes fine annotations, 19 classes (Cordts et al. 2016), in the official folder tree.

    leftImg8bit/{train,val}/<city>/<city>_..._leftImg8bit.png
    gtFine/{train,val}/<city>/<city>_..._gtFine_labelTrainIds.png    or, where there are none, ..._gtFine_labelIds.png

The test split's labels are not public: those of the official tree are void everywhere.

Ids and colours: github.com/mcordts/cityscapesScripts, helpers/labels.py.
"""

from __future__ import annotations

from pathlib import Path

from nas.data.dataset import IGNORE, ILLEGAL, Dataset, DataSpec, Split, label_map
from nas.data.pairing import pair, root_of, thin
from nas.errors import DataError

CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic_light", "traffic_sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
PALETTE = (
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153), (153, 153, 153), (250, 170, 30),
    (220, 220, 0), (107, 142, 35), (152, 251, 152), (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142),
    (0, 0, 70), (0, 60, 100), (0, 80, 100), (0, 0, 230), (119, 11, 32),
)  # fmt: skip
CATEGORIES = (
    "flat", "flat", "construction", "construction", "construction", "object", "object", "object", "nature", "nature",
    "sky", "human", "human", "vehicle", "vehicle", "vehicle", "vehicle", "vehicle", "vehicle",
)  # fmt: skip
"""The category of each class."""
LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The labelIds value of each class, which the benchmark's server expects; the other values up to 33 are void, and so is
255 (-1, licence plates)."""
LAST_LABEL_ID = 33
SHOWN = "[!.]*"
"""Glob of names that are not hidden, unlike the `._a.png` that a Mac writes to other disks."""
TRAIN_IDS = "_gtFine_labelTrainIds.png"


def load(spec: DataSpec) -> Dataset:
    """The data set in the official tree.

    Raises: DataError when root is missing or holds another tree, or a picture has no label or the reverse.
    """
    root = root_of(spec, "Cityscapes: leftImg8bit/{train,val} and gtFine/{train,val}")
    folders = [root / kind / split for kind in ("leftImg8bit", "gtFine") for split in ("train", "val")]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder} is missing; expected the official tree of leftImg8bit and gtFine in {root}")
    ending = _ending(root)
    return Dataset(
        name=spec.name,
        classes=CLASSES,
        palette=PALETTE,
        label_map=label_map(len(CLASSES)) if ending == TRAIN_IDS else _label_id_map(),
        train=thin(_pair(root, "train", ending), spec.train_images),
        validation=thin(_pair(root, "val", ending), spec.validation_images),
        size=spec.size,
        categories=CATEGORIES,
        own_values=LABEL_IDS,
    )


def load_test(spec: DataSpec) -> Split | None:
    """The test split; None if there is none.

    Raises: DataError when a picture has no label or the reverse.
    """
    root = root_of(spec, "Cityscapes")
    if not all((root / kind / "test").is_dir() for kind in ("leftImg8bit", "gtFine")):
        return None
    return _pair(root, "test", _ending(root))


def _ending(root: Path) -> str:
    return TRAIN_IDS if any((root / "gtFine").glob(f"*/{SHOWN}/{SHOWN}{TRAIN_IDS}")) else "_gtFine_labelIds.png"


def _pair(root: Path, split: str, ending: str) -> Split:
    images, labels = root / "leftImg8bit" / split, root / "gtFine" / split
    return pair(_by_frame(images, "_leftImg8bit.png"), _by_frame(labels, ending), images, labels)


def _by_frame(folder: Path, ending: str) -> dict[str, Path]:
    paths = sorted(folder.glob(f"{SHOWN}/{SHOWN}{ending}"))
    return {f"{path.parent.name}/{path.name.removesuffix(ending)}": path for path in paths}


def _label_id_map() -> tuple[int, ...]:
    entries = [IGNORE if value <= LAST_LABEL_ID or value == IGNORE else ILLEGAL for value in range(256)]
    for train_id, label_id in enumerate(LABEL_IDS):
        entries[label_id] = train_id
    return tuple(entries)
