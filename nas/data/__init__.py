"""Pictures and labels: data sets, the check of their files, and loaders that feed training steps.

    dataset = load(DataSpec(name="camvid", root="~/camvid", size=(360, 480)))
    check(dataset)
    loader = make_loader(dataset, "train", batch_size=8, augmentation=Augmentation(scale=(0.7, 1.5)))
    for images, labels in loader.epoch(0):      # (N, 3, h, w) float32, (N, h, w) int64 with IGNORE for void
        ...

Importing this package is cheap: Pillow, PyTorch and DALI are imported only by the functions that need them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from nas.data.augmentation import Augmentation
from nas.data.dataset import IGNORE, MEAN, STD, Dataset, DataSpec, Split, SplitName, data_sets, load
from nas.data.fingerprint import Fingerprint
from nas.data.loader import Loader, endless, make_loader
from nas.data.showings import ClassUniform

if TYPE_CHECKING:
    from nas.data.files import read_image, read_label
    from nas.data.survey import Findings, check, class_pixels, class_shares, images_of_classes, shares_of

__all__ = [
    "IGNORE", "MEAN", "STD", "Augmentation", "ClassUniform", "DataSpec", "Dataset", "Findings", "Fingerprint", "Loader",
    "Split", "SplitName", "check", "class_pixels", "class_shares", "data_sets", "endless", "images_of_classes", "load",
    "make_loader", "read_image", "read_label", "shares_of",
]  # fmt: skip

_NEEDS_PILLOW = {
    "read_image": "nas.data.files",
    "read_label": "nas.data.files",
    "check": "nas.data.survey",
    "class_pixels": "nas.data.survey",
    "class_shares": "nas.data.survey",
    "images_of_classes": "nas.data.survey",
    "shares_of": "nas.data.survey",
    "Findings": "nas.data.survey",
}


def __getattr__(name: str) -> Any:
    if name in _NEEDS_PILLOW:
        return getattr(importlib.import_module(_NEEDS_PILLOW[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
