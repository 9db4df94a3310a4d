"""Every data set finds its files, maps its labels, and names faults of both."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import IGNORE, Dataset, DataSpec, check, class_shares, data_sets, load, read_image, read_label, survey
from nas.data.dataset import ILLEGAL
from nas.data.sets import cityscapes
from nas.errors import DataError
from space import strict


def save_label(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def save_image(path: Path, shape: tuple[int, int] = (32, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*shape, 3), 90, dtype=np.uint8)).save(path)


def test_importing_the_package_loads_no_heavy_library() -> None:
    code = "import sys, nas.data; print([name for name in ('torch', 'PIL', 'nvidia', 'ray') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_spec_is_yaml_both_ways() -> None:
    spec = DataSpec(name="camvid", root="~/camvid", size=(360, 480), train_images=100)
    assert strict.parse(strict.dump(spec), DataSpec, "study.yaml") == spec
    assert strict.parse("name: road_scenes", DataSpec, "study.yaml") == DataSpec()


def test_the_data_sets_are_the_files_of_the_folder() -> None:
    assert data_sets() == ("camvid", "cityscapes", "folder", "road_scenes")


def test_an_unknown_data_set_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(DataError, match="did you mean 'camvid'"):
        DataSpec(name="camvit")


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (4, 240)},
        {"size": (64, 100_000)},
        {"size": (180, 240, 3)},
        {"train_images": 0},
        {"validation_images": -1},
        {"seed": -1},
    ],
)
def test_impossible_specs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        DataSpec(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("train", "labels", "val", "val_labels"),
    [("train/images", "train/labels", "val/images", "val/labels"), ("train", "trainannot", "val", "valannot")],
)
def test_camvid_is_read_in_both_layouts(tmp_path: Path, train: str, labels: str, val: str, val_labels: str) -> None:
    values = np.tile(np.arange(12), (12, 1))
    for images, values_folder in ((train, labels), (val, val_labels)):
        save_image(tmp_path / images / "a.png", (12, 12))
        save_label(tmp_path / values_folder / "a.png", values)
    dataset = load(DataSpec(name="camvid", root=str(tmp_path), size=(12, 12)))
    check(dataset)
    label = read_label(dataset, dataset.train.labels[0], None)
    assert dataset.num_classes == len(dataset.palette) == 11
    assert label[0].tolist() == [*range(11), IGNORE]


def cityscapes_tree(root: Path, kind: str, values: np.ndarray) -> None:
    for split in ("train", "val"):
        save_image(root / "leftImg8bit" / split / "ulm" / "ulm_000000_000019_leftImg8bit.png", values.shape)
        save_label(root / "gtFine" / split / "ulm" / f"ulm_000000_000019_gtFine_{kind}.png", values)


def test_cityscapes_label_ids_become_train_ids(tmp_path: Path) -> None:
    cityscapes_tree(tmp_path, "labelIds", np.tile([7, 8, 11, 26, 33, 0, 9, 255], (8, 1)))
    dataset = load(DataSpec(name="cityscapes", root=str(tmp_path), size=(8, 8)))
    label = read_label(dataset, dataset.train.labels[0], None)
    assert label[0].tolist() == [0, 1, 2, 13, 18, IGNORE, IGNORE, IGNORE]
    assert [dataset.classes[label[0, column]] for column in range(5)] == [
        "road",
        "sidewalk",
        "building",
        "car",
        "bicycle",
    ]
    assert dataset.label_map[34] == ILLEGAL
    assert sorted(set(dataset.label_map) - {IGNORE, ILLEGAL}) == list(range(19))
    assert len(cityscapes.LABEL_IDS) == len(dataset.palette) == 19


def test_cityscapes_predictions_are_written_as_label_ids_and_classes_have_categories(tmp_path: Path) -> None:
    for kind in ("labelIds", "labelTrainIds"):
        cityscapes_tree(tmp_path, kind, np.full((8, 8), 0))
        dataset = load(DataSpec(name="cityscapes", root=str(tmp_path), size=(8, 8)))
        assert dataset.label_values == cityscapes.LABEL_IDS
    of = dict(zip(dataset.classes, dataset.categories, strict=True))
    assert len({*of.values()}) == 7
    assert [of[name] for name in ("sidewalk", "fence", "pole", "terrain", "sky", "rider", "bicycle")] == [
        "flat", "construction", "object", "nature", "sky", "human", "vehicle",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"cityscapes in .*expected a test split with labels, got only train and val"):
        load(DataSpec(name="cityscapes", root=str(tmp_path), size=(8, 8)), test=True)


def test_hidden_files_of_cityscapes_are_no_pictures(tmp_path: Path) -> None:
    cityscapes_tree(tmp_path, "labelIds", np.full((8, 8), 7))
    for file in list(tmp_path.rglob("*.png")):
        file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
        if file.name.endswith("labelIds.png"):
            file.with_name("._x_gtFine_labelTrainIds.png").write_bytes(b"Mac OS X")
    dataset = load(DataSpec(name="cityscapes", root=str(tmp_path), size=(8, 8)))
    assert (len(dataset.train), len(dataset.validation)) == (1, 1)
    assert dataset.label_map[7] == 0


def test_cityscapes_prefers_train_ids(tmp_path: Path) -> None:
    cityscapes_tree(tmp_path, "labelIds", np.full((8, 8), 7))
    cityscapes_tree(tmp_path, "labelTrainIds", np.full((8, 8), 18))
    dataset = load(DataSpec(name="cityscapes", root=str(tmp_path), size=(8, 8)))
    assert (read_label(dataset, dataset.validation.labels[0], None) == 18).all()


def test_classes_yaml_names_void_and_colours(tiny_root: Path) -> None:
    (tiny_root / "classes.txt").unlink()
    (tiny_root / "classes.yaml").write_text('classes: [a, b, c]\nvoid: 3\ncolours: ["#804080", "#00008e", "#ffffff"]\n')
    dataset = load(DataSpec(name="folder", root=str(tiny_root)))
    assert dataset.palette == ((128, 64, 128), (0, 0, 142), (255, 255, 255))
    assert dataset.label_map[:5] == (0, 1, 2, IGNORE, ILLEGAL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("classes: [a]\n", "2 to 255 names"),
        ("classes: [a, a]\n", "different names"),
        ("classes: [a, b]\nvoid: 1\n", "void"),
        ("classes: [a, b, c]\nvoid: d\n", "void"),
        ("classes: [a, b, c]\nvoid: [a, b]\n", "2 to 255 names that are not void"),
        ("classes: [a, b, c]\nvoid: [0, 3]\n", "a value from 4 to 255"),
        (
            f"classes: [{', '.join(f'c{number}' for number in range(255))}]\nvoid: [0, 255]\n",
            "at most 254 names where label value 0 is void, got 255",
        ),
        ("classes: [a, b]\ncolours: ['#000000', '#000000']\n", "different colour"),
        ("classes: [a, b]\ncolours: ['#000000']\n", "colours"),
        ("classes: [a, b]\ncolours: ['red', 'blue']\n", "#rrggbb"),
        ("clases: [a, b]\n", "classes"),
    ],
)
def test_a_wrong_classes_yaml_is_refused(tiny_root: Path, text: str, message: str) -> None:
    (tiny_root / "classes.txt").unlink()
    (tiny_root / "classes.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(DataSpec(name="folder", root=str(tiny_root)))


def test_generated_colours_differ(load_tiny: Callable[..., Dataset]) -> None:
    palette = load_tiny().palette
    assert len(set(palette)) == len(palette) == 4


def test_fewer_images_are_spread_over_the_split(tiny_root: Path) -> None:
    dataset = load(DataSpec(name="folder", root=str(tiny_root), train_images=2, validation_images=99))
    assert [path.stem for path in dataset.train.images] == ["0", "2"]
    assert len(dataset.validation) == 3


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def resave(values: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(values).save(path)


DAMAGES = {
    "missing image": ("images/1.jpg", Path.unlink, "is missing"),
    "text instead of an image": ("images/1.jpg", lambda path: path.write_text("hello"), "not a readable"),
    "empty label": ("labels/1.png", lambda path: path.write_bytes(b""), "not a readable"),
    "truncated JPEG": ("images/1.jpg", truncate, "cut short"),
    "truncated label": ("labels/1.png", truncate, "cut short"),
    "label of another size": ("labels/1.png", resave(np.zeros((64, 95), np.uint8)), "expected the size"),
    "value that is no class": ("labels/1.png", resave(np.full((64, 96), 4, np.uint8)), "got 4"),
    "16-bit value": ("labels/1.png", resave(np.full((64, 96), 700, np.uint16)), "got 700"),
    "colours as label": ("labels/1.png", resave(np.full((64, 96, 3), (9, 0, 0), np.uint8)), "grey or palette"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_names_the_damaged_file(damage: str, tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    name, do, message = DAMAGES[damage]
    dataset = load_tiny()
    check(dataset)
    do(tiny_root / "train" / name)
    with pytest.raises(DataError, match=message) as caught:
        check(dataset)
    assert str(tiny_root / "train" / name) in str(caught.value)


@pytest.mark.parametrize("name", ["images/1.jpg", "labels/1.png"])
def test_an_unpaired_file_is_named(name: str, tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    partner = {"images/1.jpg": "labels/1.png", "labels/1.png": "images/1.jpg"}[name]
    (tiny_root / "train" / name).unlink()
    with pytest.raises(DataError, match=str(tiny_root / "train" / partner)):
        load_tiny()


def test_an_empty_split_is_refused(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    for kind in ("images", "labels"):
        shutil.rmtree(tiny_root / "val" / kind)
        (tiny_root / "val" / kind).mkdir()
    with pytest.raises(DataError, match="holds no images"):
        load_tiny()


def test_palette_and_narrow_labels_are_read_as_ids(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    values = np.arange(64 * 96).reshape(64, 96).astype(np.uint8) % 4
    path = tiny_root / "train" / "labels" / "0.png"
    dataset = load_tiny()
    indexed = Image.fromarray(values, mode="P")
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    indexed.save(path)
    assert (read_label(dataset, path, None) == values).all()
    save_narrow_grey(path, values, bits=2)
    assert (read_label(dataset, path, None) == values).all()
    Image.fromarray(values.astype(np.uint16)).save(path)
    assert (read_label(dataset, path, None) == values).all()


def save_narrow_grey(path: Path, values: np.ndarray, bits: int) -> None:
    """A grey PNG with few bits per pixel, which Pillow cannot write, byte by byte."""
    import struct
    import zlib

    height, width = values.shape
    per_byte = 8 // bits
    shifts = np.arange(per_byte)[::-1] * bits
    packed = (values.reshape(height, width // per_byte, per_byte) << shifts).sum(axis=2).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(png)


def test_pictures_and_labels_can_be_read_at_another_size(load_tiny: Callable[..., Dataset]) -> None:
    dataset = load_tiny((32, 48))
    image = read_image(dataset.train.images[0], dataset.size)
    label = read_label(dataset, dataset.train.labels[0], dataset.size)
    full = read_label(dataset, dataset.train.labels[0], None)
    assert image.shape == (32, 48, 3)
    assert image.dtype == label.dtype == np.uint8
    assert (label == full[1::2, 1::2]).all()


def test_class_shares_exclude_void(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    for path in (tiny_root / "train" / "labels").iterdir():
        values = np.full((64, 96), 255, np.uint8)
        values[:8, :8], values[8:16, :24] = 1, 2
        save_label(path, values)
    assert class_shares(load_tiny()).tolist() == [0.0, 0.25, 0.75, 0.0]


def test_files_are_read_a_few_at_a_time_and_class_shares_read_labels_alone(
    tiny_root: Path, load_tiny: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "usable_cores", lambda: 1)
    dataset, entered = replace(load_tiny(), cache_gigabytes=0), []

    @contextmanager
    def guard() -> Iterator[None]:
        entered.append(True)
        yield

    expected = class_shares(dataset, guard)
    assert len(entered) == math.ceil(len(dataset.train) / survey.FILES_AT_ONCE) > 1
    check(dataset, ("train",), guard)
    assert len(entered) == 2 * math.ceil(len(dataset.train) / survey.FILES_AT_ONCE)
    for path in dataset.train.images:
        path.unlink()
    assert class_shares(dataset).tolist() == expected.tolist()


def test_class_shares_of_void_only_are_refused(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    for path in (tiny_root / "train" / "labels").iterdir():
        save_label(path, np.full((64, 96), 255))
    with pytest.raises(DataError, match="void everywhere"):
        class_shares(load_tiny())


def test_real_camvid_passes_its_check() -> None:
    root = Path(os.environ.get("FRAMEBUDGET_CAMVID", "../shared/camvid"))
    if not root.is_dir():
        pytest.skip("CamVid is not here; set FRAMEBUDGET_CAMVID to its folder")
    dataset = load(DataSpec(name="camvid", root=str(root), train_images=12, validation_images=6))
    check(dataset)
    shares = class_shares(dataset)
    assert shares[dataset.classes.index("road")] > 0.2
    assert shares.sum() == pytest.approx(1.0)
