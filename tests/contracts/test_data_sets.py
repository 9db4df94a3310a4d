"""Contract of data sets: every file in nas/data/sets is tested here, with the sample pictures that SAMPLES makes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import IGNORE, Dataset, DataSpec, Split, check, data_sets, load, make_loader, read_image, read_label
from nas.data.dataset import GROUP, ILLEGAL, SETS
from nas.errors import DataError
from space import extensions, strict

TRAIN, VALIDATION = 5, 3  # pictures that a sample has
FILE_SIZE = (32, 48)
SIZE = (24, 40)  # the size that tests request


def camvid(root: Path) -> str:
    for split, count in (("train", TRAIN), ("val", VALIDATION)):
        for index in range(count):
            image, label = draw(index, values=range(12))
            save(root / split / "images" / f"{split}{index}.png", image)
            save(root / split / "labels" / f"{split}{index}.png", label)
    return str(root)


def cityscapes(root: Path) -> str:
    for split, count in (("train", TRAIN), ("val", VALIDATION)):
        for index in range(count):
            image, label = draw(index, values=(0, 7, 8, 11, 26, 33, 255))
            frame = f"ulm_{index:06}_000019"
            save(root / "leftImg8bit" / split / "ulm" / f"{frame}_leftImg8bit.png", image)
            save(root / "gtFine" / split / "ulm" / f"{frame}_gtFine_labelIds.png", label)
    return str(root)


def folder(root: Path) -> str:
    for split, count in (("train", TRAIN), ("val", VALIDATION)):
        for index in range(count):
            image, label = draw(index, values=(0, 1, 2, 255))
            save(root / split / "images" / f"{split}{index}.jpg", image)
            save(root / split / "labels" / f"{split}{index}.png", label)
    (root / "classes.txt").write_text("ground\nwall\nsky\n")
    return str(root)


def road_scenes(root: Path) -> None:
    """Write nothing: the data set draws its own pictures."""


SAMPLES: dict[str, Callable[[Path], str | None]] = {
    "camvid": camvid,
    "cityscapes": cityscapes,
    "folder": folder,
    "road_scenes": road_scenes,
}
"""For each data set what writes TRAIN and VALIDATION pictures of FILE_SIZE into a folder, in the layout that the data
set reads, and gives the root to ask for: None where the data set needs none."""


def draw(index: int, values: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) and its label (H, W), in blocks of all `values`."""
    order = np.random.default_rng(index).permutation(np.resize(values, 24))
    label = order.reshape(4, 6).repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([label * 7 % 256, 255 - label, label // 2 + index], axis=2), label


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


OURS = tuple(name for name in data_sets() if extensions.modules(SETS, GROUP, separator="_")[name].startswith(SETS))
every_data_set = pytest.mark.parametrize("name", OURS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def root(name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    """The root to request, which holds the sample; drawn pictures go to one cache that all these tests share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    if name not in SAMPLES:
        pytest.fail(f"no pictures to test {name} on: write what makes some, and name it in SAMPLES of {__file__}")
    return SAMPLES[name](tmp_path / name)


@pytest.fixture
def spec(name: str, root: str | None) -> DataSpec:
    return DataSpec(name=name, root=root, size=SIZE, train_images=TRAIN, validation_images=VALIDATION)


@pytest.fixture
def dataset(spec: DataSpec) -> Dataset:
    return load(spec)


def shown(split: Split, dataset: Dataset) -> list[tuple[str, bytes, bytes]]:
    """Names, pixels and classes of all pictures of a split."""
    return [
        (image.name, read_image(image, None).tobytes(), read_label(dataset, label, None).tobytes())
        for image, label in zip(split.images, split.labels, strict=True)
    ]


@every_data_set
def test_a_data_set_has_the_name_and_size_of_its_specification(spec: DataSpec, dataset: Dataset) -> None:
    assert (dataset.name, dataset.size) == (spec.name, SIZE)
    assert strict.parse(strict.dump(spec), DataSpec, "study.yaml") == spec


@every_data_set
def test_each_picture_can_be_read_and_is_in_one_split_only(dataset: Dataset) -> None:
    check(dataset)
    assert (len(dataset.train), len(dataset.validation)) == (TRAIN, VALIDATION)
    assert not {*dataset.train.images} & {*dataset.validation.images}
    assert not {*dataset.train.labels} & {*dataset.validation.labels}


@every_data_set
def test_every_class_has_a_name_a_colour_and_a_label_value(dataset: Dataset) -> None:
    count = dataset.num_classes
    assert count >= 2
    assert all(name.strip() for name in dataset.classes)
    assert len({*dataset.classes}) == len({*dataset.palette}) == count
    assert all(len(colour) == 3 and all(0 <= value <= 255 for value in colour) for colour in dataset.palette)
    assert len(dataset.label_map) == 256
    assert {*dataset.label_map} - {ILLEGAL} == {*range(count), IGNORE}
    assert len({*dataset.label_values}) == count
    assert all(0 <= value < 256 for value in dataset.label_values)
    assert dataset.label_map[IGNORE] == IGNORE


@every_data_set
@pytest.mark.parametrize("split", ["train", "validation"])
def test_networks_see_pictures_at_the_requested_size(dataset: Dataset, split: Literal["train", "validation"]) -> None:
    loader = make_loader(dataset, split, batch_size=2, augmentation=None, backend="torch")
    images, labels = next(loader.epoch(0))
    assert images.shape == (2, 3, *SIZE)
    assert labels.shape == (2, *SIZE)
    assert images.isfinite().all()
    known = labels[labels != IGNORE]
    assert known.numel()
    assert torch.all((known >= 0) & (known < dataset.num_classes))


@every_data_set
@pytest.mark.parametrize(("train", "validation"), [(1, 1), (3, 2)])
def test_a_data_set_has_no_more_pictures_than_requested(
    name: str, root: str | None, train: int, validation: int
) -> None:
    dataset = load(DataSpec(name=name, root=root, size=SIZE, train_images=train, validation_images=validation))
    check(dataset)
    assert (len(dataset.train), len(dataset.validation)) == (train, validation)


@every_data_set
def test_a_data_set_is_the_same_every_time(spec: DataSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(spec)
    assert load(spec) == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another cache"))
    again = load(spec)
    assert shown(again.train, again) == shown(first.train, first)
    assert shown(again.validation, again) == shown(first.validation, first)


@every_data_set
def test_a_seed_draws_other_pictures_or_is_refused(name: str, root: str | None, dataset: Dataset) -> None:
    seeded = DataSpec(name=name, root=root, size=SIZE, train_images=TRAIN, validation_images=VALIDATION, seed=1)
    if root is not None:
        with pytest.raises(DataError, match=r"data.seed: .*got 1"):
            load(seeded)
    else:
        other = load(seeded)
        assert shown(other.train, other) != shown(dataset.train, dataset)


@every_data_set
def test_the_error_for_a_missing_root_names_the_contents_that_are_expected(
    name: str, root: str | None, tmp_path: Path
) -> None:
    if root is None:
        with pytest.raises(DataError, match=r"data.root: .*remove it"):
            load(DataSpec(name=name, root=str(tmp_path)))
        return
    nowhere, empty = tmp_path / "nowhere", tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match=rf"data.root: {name} needs the folder that holds \w+"):
        load(DataSpec(name=name))
    with pytest.raises(DataError, match=rf"{nowhere} is not a folder; expected one that holds \w+"):
        load(DataSpec(name=name, root=str(nowhere)))
    with pytest.raises(DataError, match=rf"{empty}/\S+ is missing; (expected|list) \w+"):
        load(DataSpec(name=name, root=str(empty)))


@pytest.mark.share(4)
@every_data_set
def test_importing_a_data_set_loads_no_heavy_library(name: str) -> None:
    code = (
        f"import importlib, sys; importlib.import_module('nas.data.sets.{name}');"
        "print([m for m in ('torch', 'PIL', 'nvidia', 'ray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
