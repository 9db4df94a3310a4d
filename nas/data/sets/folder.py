"""Any images with label PNGs and a list of classes.

    classes.txt                 one class name per line, in the order of the label values 0, 1, 2, ...
    classes.yaml                or this: classes: [road, car]; optionally void: 9 and colours: ["#804080", "#00008e"]
    train/images  train/labels  NAME.jpg or NAME.png, and NAME.png of 8-bit grey or palette values; sub-folders are read
    val/images    val/labels
    test/images   test/labels   optional; only `nas evaluate --split test` reads them

The label value 255 is void, and so are the values and classes that classes.yaml lists as void; see docs/data.md.
"""

from __future__ import annotations

from nas.data.class_list import read_classes
from nas.data.dataset import Dataset, DataSpec, Split
from nas.data.pairing import pair_folders, root_of, thin


def load(spec: DataSpec) -> Dataset:
    """The data set described by its class list and folders.

    Raises: DataError when root, a folder or the class list is missing, or a picture has no label or the reverse;
    UserError when classes.yaml has unknown keys or wrong types.
    """
    root = root_of(spec, "classes.txt, train/images, train/labels, val/images and val/labels")
    listed, notes = read_classes(root)
    train, left_out = pair_folders(root / "train" / "images", root / "train" / "labels")
    validation, also_left_out = pair_folders(root / "val" / "images", root / "val" / "labels")
    return Dataset(
        name=spec.name,
        classes=listed.names,
        palette=listed.palette,
        label_map=listed.label_map,
        train=thin(train, spec.train_images),
        validation=thin(validation, spec.validation_images),
        size=spec.size,
        label_colours=listed.label_colours,
        notes=notes + left_out + also_left_out,
    )


def load_test(spec: DataSpec) -> Split | None:
    """The test split; None if there is none.

    Raises: DataError when a picture has no label or the reverse.
    """
    folder = root_of(spec, "images and labels") / "test"
    if not (folder / "labels").is_dir():  # images alone, to predict
        return None
    return pair_folders(folder / "images", folder / "labels")[0]
