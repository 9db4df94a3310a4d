"""The survey of a data set: oddities are noted, and faults that would make its scores worthless are refused."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import Dataset, check
from nas.errors import DataError
from nas.storage.files import OWNER

Load = Callable[..., Dataset]


def relabel(root: Path, change: Callable[[np.ndarray], np.ndarray], splits: tuple[str, ...] = ("train", "val")) -> None:
    for split in splits:
        for path in (root / split / "labels").iterdir():
            Image.fromarray(change(np.array(Image.open(path))).astype(np.uint8)).save(path)


def notes(load: Load, *size: int) -> str:
    return "\n".join(check(load(tuple(size)) if size else load()).notes)


def test_a_good_data_set_is_counted_without_notes(tiny_root: Path, load_tiny: Load) -> None:
    findings = check(load_tiny())
    assert findings.notes == ()
    train = dict(findings.splits)["train"]
    labels = np.array([np.array(Image.open(path)) for path in sorted((tiny_root / "train" / "labels").iterdir())])
    assert train.images == 5
    assert train.sizes == (((64, 96), 5),)
    assert train.class_pixels == tuple(int((labels == index).sum()) for index in range(4))
    assert train.class_images == tuple(int((labels == index).any(axis=(1, 2)).sum()) for index in range(4))
    assert train.void_pixels == (labels == 255).sum()
    assert train.conventions == (("grey", 5),)


def test_a_class_named_void_is_noted(tiny_root: Path, load_tiny: Load) -> None:
    names = (tiny_root / "classes.txt").read_text().splitlines()
    (tiny_root / "classes.txt").write_text("\n".join([*names[:-1], "Void"]))
    assert "the class 'Void' is trained and scored like the others; if it means void" in notes(load_tiny)


def test_copied_images_and_labels_are_noted(tiny_root: Path, load_tiny: Load) -> None:
    labels = sorted((tiny_root / "train" / "labels").iterdir())
    shutil.copy(labels[0], labels[1])
    assert "1 train label is a copy of another although the images differ" in notes(load_tiny)
    images = sorted((tiny_root / "train" / "images").iterdir())
    shutil.copy(images[0], images[1])
    told = notes(load_tiny)
    assert "1 of the 5 train images is a copy of another" in told
    assert "labels are copies" not in told


@pytest.mark.parametrize("second", [255, 0])
def test_masks_with_a_single_class_are_refused(second: int, tiny_root: Path, load_tiny: Load) -> None:
    """In masks of 0 and 255 the second class is void, so that any network would be right everywhere."""
    (tiny_root / "classes.txt").write_text("background\nlane\n")
    relabel(tiny_root, lambda label: np.where(label == 0, 0, second))
    hint = "255 means void: if it stands for a class" if second else "check the labels and the class list"
    for splits in (("train", "validation"), ("validation",)):
        with pytest.raises(DataError, match=rf"at least two classes .*only 'background' .*{hint}"):
            check(load_tiny(), splits)


def test_a_validation_split_without_labels_is_refused_before_a_training(tiny_root: Path, load_tiny: Load) -> None:
    relabel(tiny_root, lambda label: np.full_like(label, 255), ("val",))
    with pytest.raises(DataError, match="every label of the validation split is void everywhere"):
        check(load_tiny())


def test_classes_that_never_occur_are_named(tiny_root: Path, load_tiny: Load) -> None:
    (tiny_root / "classes.txt").write_text("ground\nwall\nsky\ntree\nperson\nrider\n")
    told = notes(load_tiny)
    assert "no label holds 'person', 'rider'; the label values found are 0, 1, 2, 3, 255" in told
    assert "255 is void: if it stands for one of them" in told


@pytest.mark.parametrize(
    ("folder", "told"),
    [
        ("train", "train split holds 'tree': it cannot be learnt"),
        ("val", "validation split holds 'tree': its IoU is 0 if a network predicts it anywhere"),
    ],
)
def test_a_class_that_one_split_lacks_is_noted(folder: str, told: str, tiny_root: Path, load_tiny: Load) -> None:
    (tiny_root / "classes.txt").write_text("ground\nwall\nsky\ntree\n")
    relabel(tiny_root, lambda label: np.where(label == 3, 2, label), (folder,))
    assert f"no label of the {told}" in notes(load_tiny)


def test_much_void_is_noted(tiny_root: Path, load_tiny: Load) -> None:
    def mostly_void(label: np.ndarray) -> np.ndarray:
        label[:50] = 255
        return label

    relabel(tiny_root, mostly_void, ("train",))
    Image.fromarray(np.full((64, 96), 255, np.uint8)).save(tiny_root / "train" / "labels" / "0.png")
    told = notes(load_tiny)
    assert "% of the train labels are void" in told
    assert "1 label is void everywhere, such as " in told


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((64, 96), ""),
        ((32, 48), ""),
        ((72, 96), ""),
        ((96, 64), "stretched by 2.2; are height and width swapped? sizes are HxW: 64x96"),
        ((64, 200), "stretched by 2.1; is that intended?"),
    ],
)
def test_sizes_that_squeeze_pictures_are_noted(size: tuple[int, int], expected: str, load_tiny: Load) -> None:
    told = notes(load_tiny, *size)
    assert expected in told
    assert bool(told) == bool(expected)


def test_turned_pictures_are_counted(tiny_root: Path, load_tiny: Load) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    for name in ("0", "1"):
        path = tiny_root / "train" / "images" / f"{name}.jpg"
        Image.open(path).copy().save(path, exif=exif)
    assert "2 images are turned as EXIF asks (2 of orientation 3)" in notes(load_tiny)


def test_validation_images_that_are_also_training_images_are_counted(tiny_root: Path, load_tiny: Load) -> None:
    for kind in ("images", "labels"):
        path = next((tiny_root / "train" / kind).glob("3.*"))
        shutil.copy(path, tiny_root / "val" / kind / f"again{path.suffix}")
    assert "1 validation image is a training image too" in notes(load_tiny)


def test_palettes_that_differ_from_file_to_file_are_noted(tiny_root: Path, load_tiny: Load) -> None:
    values = (np.arange(64 * 96).reshape(64, 96) % 4).astype(np.uint8)
    for index in range(2):
        label = Image.fromarray(values, mode="P")
        label.putpalette([9, 9, 9, 200 - index, 0, 0, 0, 200, 0, 0, 0, 200])
        label.save(tiny_root / "train" / "labels" / f"{index}.png")
    assert "label value 1 has different colours" in notes(load_tiny)


def test_pairs_in_sub_folders_are_read(tiny_root: Path, load_tiny: Load) -> None:
    for kind in ("images", "labels"):
        folder = tiny_root / "train" / kind / "camera 1"
        folder.mkdir()
        for name in ("1", "2"):
            path = next((tiny_root / "train" / kind).glob(f"{name}.*"))
            path.rename(folder / path.name)
        (tiny_root / "train" / kind / ".hidden").mkdir()
        (tiny_root / "train" / kind / ".hidden" / "a.png").write_bytes(b"")
        (tiny_root / "train" / kind / "._0.png").write_bytes(b"")
        (tiny_root / "train" / kind / "Thumbs.db").write_bytes(b"")
    dataset = load_tiny()
    check(dataset)
    assert [path.stem for path in dataset.train.images] == ["0", "3", "4", "1", "2"]
    assert [path.stem for path in dataset.train.labels] == ["0", "3", "4", "1", "2"]
    (tiny_root / "train" / "labels" / "camera 1" / "1.png").rename(tiny_root / "train" / "labels" / "1.png")
    with pytest.raises(DataError, match="both must lie in the same sub-folder"):
        load_tiny()


def test_files_of_other_kinds_are_noted(tiny_root: Path, load_tiny: Load) -> None:
    for kind in ("images", "labels"):
        path = next((tiny_root / "train" / kind).glob("1.*"))
        Image.open(path).convert("L").save(path.with_suffix(".bmp"))
        path.unlink()
    dataset = load_tiny()
    assert len(dataset.train) == 4
    assert notes(load_tiny).count("1 file is not read (.bmp): 1.bmp") == 2


@pytest.mark.parametrize(("kind", "suffix"), [("images", ".tif"), ("labels", ".bmp"), ("labels", ".jpg")])
def test_a_partner_of_another_file_kind_is_named(kind: str, suffix: str, tiny_root: Path, load_tiny: Load) -> None:
    path = next((tiny_root / "train" / kind).glob("1.*"))
    Image.open(path).save(path.with_suffix(suffix))
    path.unlink()
    with pytest.raises(DataError, match=f"1{suffix}: expected .* (got a JPEG|which is not read; convert it)"):
        load_tiny()


def test_file_names_with_accents_match_in_either_unicode_form(tiny_root: Path, load_tiny: Load) -> None:
    for kind, form in (("images", "NFC"), ("labels", "NFD")):
        path = next((tiny_root / "train" / kind).glob("1.*"))
        path.rename(path.with_stem(unicodedata.normalize(form, "Straßé")))  # type: ignore[arg-type]
    assert len(load_tiny().train) == 5


@pytest.mark.parametrize(
    ("image", "label", "expected"),
    [("img_1.jpg", "IMG_1.png", "differ in capitals"), ("1.jpg", "1_L.png", "there is 1_L.png: rename it")],
)
def test_file_names_that_nearly_match_are_pointed_out(
    image: str, label: str, expected: str, tiny_root: Path, load_tiny: Load
) -> None:
    (tiny_root / "train" / "images" / "1.jpg").rename(tiny_root / "train" / "images" / image)
    (tiny_root / "train" / "labels" / "1.png").rename(tiny_root / "train" / "labels" / label)
    with pytest.raises(DataError, match=expected):
        load_tiny()


def test_existing_folders_are_named_beside_a_missing_one(tiny_root: Path, load_tiny: Load) -> None:
    (tiny_root / "val").rename(tiny_root / "valid")
    (tiny_root / "quantized").mkdir()
    (tiny_root / "quantized" / OWNER).touch()  # a command is working there
    with pytest.raises(DataError, match=r"is missing; .* holds the folders train, valid"):
        load_tiny()


def test_a_fingerprint_depends_on_the_decoded_data_alone(tiny_root: Path, load_tiny: Load, tmp_path: Path) -> None:
    before = check(load_tiny()).fingerprint
    path = tiny_root / "train" / "labels" / "0.png"
    values = np.array(Image.open(path))
    Image.fromarray(np.dstack([values] * 3)).save(path)  # the same label in another file format
    (tiny_root / "train" / "images" / "0.jpg").rename(tiny_root / "train" / "images" / "00.jpg")
    path.rename(path.with_name("00.png"))
    assert before.difference(check(load_tiny()).fingerprint) == ""
    values[0, 0] = 1 - min(values[0, 0], 1)
    Image.fromarray(values).save(path.with_name("00.png"))
    changed = check(load_tiny()).fingerprint
    assert before.difference(changed) == "the train labels have changed"
    image = tiny_root / "val" / "images" / "1.png"
    Image.open(image).convert("L").save(image)
    assert before.difference(check(load_tiny()).fingerprint) == (
        "the train labels and the validation images have changed"
    )
    renamed = replace(load_tiny(), classes=("wall", "ground", "sky", "tree"))
    assert "the classes were ground, wall" in changed.difference(check(renamed).fingerprint)
