"""Loaders: both backends show the same, labels follow their images, and epochs depend on seed and number alone."""

from __future__ import annotations

import colorsys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from nas.data import IGNORE, MEAN, STD, Augmentation, Dataset, DataSpec, check, load, make_loader, read_label
from nas.data import loader as loader_module
from nas.data.share import WHOLE, Share
from nas.data.windows import PADDING, order, turned
from nas.errors import DataError

BACKENDS = [
    "torch",
    pytest.param("dali", marks=pytest.mark.skipif(not loader_module._dali_is_installed(), reason="DALI is missing")),
]
both = pytest.mark.parametrize("backend", BACKENDS)
with_dali = pytest.mark.skipif(not loader_module._dali_is_installed(), reason="DALI is missing")
COLOURED = Augmentation(saturation=0.5, hue_degrees=36)
VARIED = replace(COLOURED, crop=(48, 56), scale=(0.6, 1.8), shift_pixels=9, brightness=0.3, contrast=0.3)


def pictures(images: Tensor) -> Tensor:
    """Grey values 0..255 of normalised images."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (images * std + mean) * 255


def whole_epoch(dataset: Dataset, backend: str, number: int = 0, **wishes: object) -> tuple[Tensor, Tensor]:
    wishes = {"split": "train", "batch_size": 2, "augmentation": None, **wishes}
    split = wishes.pop("split")
    batches = list(make_loader(dataset, split, backend=backend, **wishes).epoch(number))  # type: ignore[arg-type]
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


@pytest.fixture
def telling(tmp_path: Path) -> Dataset:
    """Pictures whose grey value is 20 times their label, in blocks; 12 is void."""
    root = tmp_path / "telling"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(6):
            label = np.random.default_rng(index).integers(0, 13, (16, 24), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
            Image.fromarray(np.stack([label * 20] * 3, axis=2)).save(root / split / "images" / f"{index}.png")
            Image.fromarray(label).save(root / split / "labels" / f"{index}.png")
    (root / "classes.yaml").write_text(f"classes: [{', '.join(f'c{i}' for i in range(12))}]\nvoid: 12\n")
    return load(DataSpec(name="folder", root=str(root), size=(64, 96)))


@both
def test_images_and_labels_get_the_same_geometry(telling: Dataset, backend: str) -> None:
    """At scale 1 no pixel is mixed, so grey values still tell the labels after crop, shift and flip."""
    augmentation = Augmentation(crop=(50, 70), shift_pixels=30)
    for number in range(3):
        images, labels = whole_epoch(telling, backend, number, augmentation=augmentation)
        grey = pictures(images)
        assert (labels == IGNORE).any()
        known = labels != IGNORE
        for channel in range(3):
            torch.testing.assert_close(grey[:, channel][known], 20.0 * labels[known], atol=0.01, rtol=0)


@both
def test_windows_outside_an_image_are_mean_colour_and_void(telling: Dataset, backend: str) -> None:
    augmentation = Augmentation(crop=(192, 288), flip=False)
    images, labels = whole_epoch(telling, backend, augmentation=augmentation)
    outside = (labels == IGNORE) & (pictures(images)[:, 0] - PADDING[0]).abs().lt(0.01)
    assert outside.float().mean() > 0.85
    assert images.permute(0, 2, 3, 1)[outside].abs().max() < 0.01


@both
def test_labels_stay_inside_the_classes(load_tiny: Callable[..., Dataset], backend: str) -> None:
    images, labels = whole_epoch(load_tiny((40, 72)), backend, augmentation=VARIED)
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert set(labels.unique().tolist()) <= {0, 1, 2, 3, IGNORE}
    assert labels.shape[1:] == (48, 56)


@with_dali
@pytest.mark.parametrize("size", [(64, 96), (40, 72), (100, 130)])
@pytest.mark.parametrize("augmentation", [None, VARIED, COLOURED], ids=["plain", "varied", "coloured"])
def test_both_backends_show_the_same(
    load_tiny: Callable[..., Dataset], size: tuple[int, int], augmentation: Augmentation | None
) -> None:
    dataset = load_tiny(size)
    for number in (0, 1):
        ours, our_labels = whole_epoch(dataset, "torch", number, augmentation=augmentation, seed=3)
        theirs, their_labels = whole_epoch(dataset, "dali", number, augmentation=augmentation, seed=3)
        assert torch.equal(our_labels, their_labels)
        # At the border the two antialiasing filters weigh pixels outside differently.
        inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
        torch.testing.assert_close(pictures(ours)[inside], pictures(theirs)[inside], atol=0.6, rtol=0)


@with_dali
def test_labels_agree_where_pixel_centres_fall_between_pixels(tmp_path: Path) -> None:
    """Ratios such as 200:180 put centres exactly on borders, where float arithmetic may take either side."""
    for height, width in ((200, 56), (72, 200), (144, 264)):
        root = tmp_path / f"{height}x{width}"
        for split in ("train", "val"):
            for kind in ("images", "labels"):
                (root / split / kind).mkdir(parents=True)
            label = (np.add.outer(np.arange(height) * 3, np.arange(width)) % 5).astype(np.uint8)
            Image.fromarray(np.stack([label] * 3, axis=2)).save(root / split / "images" / "0.png")
            Image.fromarray(label).save(root / split / "labels" / "0.png")
        (root / "classes.txt").write_text("a\nb\nc\nd\ne\n")
        dataset = load(DataSpec(name="folder", root=str(root), size=(180, 240)))
        assert torch.equal(whole_epoch(dataset, "torch")[1], whole_epoch(dataset, "dali")[1])


@with_dali
def test_odd_files_look_the_same_in_both_backends(tiny_root: Path, load_tiny: Callable[..., Dataset]) -> None:
    """Turned, chroma subsampled, grey, palette and transparent pictures; palette, 16-bit, 1-bit and RGB labels."""
    images, labels = tiny_root / "train" / "images", tiny_root / "train" / "labels"
    first = Image.open(images / "0.jpg").copy()
    on_its_side = first.transpose(Image.Transpose.ROTATE_90)
    on_its_side.save(images / "0.jpg", subsampling="4:2:0", exif=_turned())
    first.convert("L").save(images / "1.jpg")
    for index, mode in ((2, "P"), (3, "RGBA")):
        (images / f"{index}.jpg").unlink()
        first.convert(mode).save(images / f"{index}.png")
    values = np.arange(64 * 96).reshape(64, 96) % 4
    indexed = Image.fromarray(values.astype(np.uint8), mode="P")
    indexed.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0, 0, 0, 200])
    indexed.save(labels / "0.png")
    Image.fromarray(values.astype(np.uint16)).save(labels / "1.png")
    Image.fromarray(values > 1).save(labels / "2.png")
    Image.fromarray(np.stack([values.astype(np.uint8)] * 3, axis=2)).save(labels / "3.png")
    dataset = load_tiny()
    check(dataset)
    ours, our_labels = whole_epoch(dataset, "torch")
    theirs, their_labels = whole_epoch(dataset, "dali")
    assert torch.equal(our_labels, their_labels)
    torch.testing.assert_close(pictures(ours), pictures(theirs), atol=1.01, rtol=0)
    shown = order(5, seed=0, epoch=0).tolist()
    for index in (0, 3):
        assert (our_labels[shown.index(index)].numpy() == values).all()
    upright = torch.from_numpy(np.array(first)).permute(2, 0, 1).float()
    assert (pictures(ours)[shown.index(0)] - upright).abs().mean() < 8


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn me by 90 degrees"
    return exif


@both
def test_an_epoch_is_a_function_of_seed_and_number(load_tiny: Callable[..., Dataset], backend: str) -> None:
    dataset = load_tiny()
    fresh = whole_epoch(dataset, backend, 4, augmentation=VARIED, seed=1)
    loader = make_loader(dataset, "train", batch_size=2, augmentation=VARIED, seed=1, backend=backend)  # type: ignore[arg-type]
    next(iter(loader.epoch(0)))  # left unfinished
    again = [torch.cat(parts) for parts in zip(*loader.epoch(4), strict=True)]
    other = [torch.cat(parts) for parts in zip(*loader.epoch(5), strict=True)]
    assert torch.equal(fresh[0], again[0])
    assert torch.equal(fresh[1], again[1])
    assert not torch.equal(fresh[0], other[0])
    assert not torch.equal(fresh[0], whole_epoch(dataset, backend, 4, augmentation=VARIED, seed=2)[0])


@both
def test_batches_keep_their_contents(load_tiny: Callable[..., Dataset], backend: str) -> None:
    """A batch must not change when the next one is made."""
    batches = make_loader(load_tiny(), "train", batch_size=2, augmentation=None, backend=backend).epoch(0)  # type: ignore[arg-type]
    images, labels = next(batches)
    kept = images.clone(), labels.clone()
    next(batches)
    assert torch.equal(images, kept[0])
    assert torch.equal(labels, kept[1])


@both
def test_batches_made_ahead_are_the_same(load_tiny: Callable[..., Dataset], backend: str) -> None:
    dataset = load_tiny()
    loader = make_loader(dataset, "train", batch_size=2, augmentation=VARIED, seed=1, backend=backend)  # type: ignore[arg-type]
    batches = loader.epoch(4)
    with batches.ahead(nullcontext):
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    fresh = whole_epoch(dataset, backend, 4, augmentation=VARIED, seed=1)
    assert torch.equal(images, fresh[0])
    assert torch.equal(labels, fresh[1])


@both
def test_a_partial_epoch_is_the_beginning_of_the_whole_epoch(load_tiny: Callable[..., Dataset], backend: str) -> None:
    loader = make_loader(load_tiny(), "train", batch_size=2, augmentation=VARIED, backend=backend)  # type: ignore[arg-type]
    first, *_ = loader.epoch(3)
    (only,) = loader.epoch(3, 1)
    assert torch.equal(first[0], only[0])


@both
def test_pictures_that_are_not_scaled_are_the_same_in_a_batch_that_is_resized(
    load_tiny: Callable[..., Dataset], tiny_root: Path, backend: str
) -> None:
    """No window of a batch that is not scaled at all is resampled."""
    path = tiny_root / "val" / "images" / "0.png"
    for each in (path, tiny_root / "val" / "labels" / "0.png"):
        picture = Image.open(each)
        picture.resize((48, 32), Image.Resampling.NEAREST).save(each)
    dataset = load_tiny()
    mixed = whole_epoch(dataset, backend, split="validation", batch_size=3)
    alone = whole_epoch(dataset, backend, split="validation", batch_size=1)
    assert torch.equal(mixed[0], alone[0])
    assert torch.equal(mixed[1], alone[1])
    exact = np.array(Image.open(tiny_root / "val" / "images" / "1.png"))
    assert (pictures(alone[0])[1].permute(1, 2, 0) - torch.from_numpy(exact)).abs().max() < 1e-4


@both
def test_validation_comes_in_order_with_a_partial_last_batch(load_tiny: Callable[..., Dataset], backend: str) -> None:
    dataset = load_tiny((32, 48))
    loader = make_loader(dataset, "validation", batch_size=2, augmentation=None, backend=backend)  # type: ignore[arg-type]
    assert loader.backend == backend
    assert len(loader) == 2
    labels = [label for _, batch in loader.epoch(0) for label in batch]
    assert [len(batch) for _, batch in loader.epoch(0)] == [2, 1]
    for label, path in zip(labels, dataset.validation.labels, strict=True):
        assert (label.numpy() == read_label(dataset, path, dataset.size)).all()


@both
def test_training_shows_every_sample_once(telling: Dataset, backend: str) -> None:
    _, labels = whole_epoch(telling, backend, 7, batch_size=4)
    shown = [label.numpy().tobytes() for label in labels]
    files = [read_label(telling, path, None).astype(np.int64).tobytes() for path in telling.train.labels]
    assert sorted(shown) == sorted(files)
    assert shown != files


@pytest.mark.parametrize(
    ("batch_size", "expected"),
    [(2, [2, 3]), (4, [5]), (3, [3, 2]), (5, [5]), (8, [5]), (1, [1] * 5)],
)
@both
def test_no_training_batch_has_a_lone_sample(
    load_tiny: Callable[..., Dataset], batch_size: int, expected: list[int], backend: str
) -> None:
    loader = make_loader(load_tiny(), "train", batch_size=batch_size, augmentation=None, backend=backend)  # type: ignore[arg-type]
    assert [len(images) for images, _ in loader.epoch(0)] == expected
    assert len(loader) == len(expected)


@pytest.mark.parametrize("split", ["train", "validation"])
@both
def test_several_processes_share_the_batches_of_one_process(
    load_tiny: Callable[..., Dataset], backend: str, split: str
) -> None:
    """Three processes share batches of up to four, so that some processes get no image of some batches."""
    wishes = {"batch_size": 3, "augmentation": VARIED if split == "train" else None, "backend": backend}

    def epoch(share: Share) -> list[tuple[Tensor, Tensor]]:
        return list(make_loader(load_tiny(), split, share=share, **wishes).epoch(2))  # type: ignore[arg-type]

    whole, shares = epoch(WHOLE), [epoch(Share(rank=rank, count=3)) for rank in range(3)]
    assert max(len(images) for share in shares for images, _ in share) == 1
    if split == "train":  # processes take training steps together
        assert {len(share) for share in shares} == {len(whole)}
        assert any(len(images) == 0 for share in shares for images, _ in share)
    for place, (images, labels) in enumerate(whole):
        dealt = [share[place] for share in shares if place < len(share)]
        torch.testing.assert_close(torch.cat([each for each, _ in dealt]), images, rtol=0, atol=1e-4)
        assert torch.equal(torch.cat([each for _, each in dealt]), labels)


def test_crops_that_a_class_fills_are_cut_elsewhere(load_tiny: Callable[..., Dataset]) -> None:
    dataset, crop = load_tiny(), Augmentation(crop=(24, 24))

    def labels(augmentation: Augmentation) -> Tensor:
        return torch.cat([whole_epoch(dataset, "torch", each, augmentation=augmentation)[1] for each in range(4)])

    def filled(label: Tensor) -> bool:
        counts = label[label != IGNORE].bincount()
        return bool(counts.max() >= 0.75 * counts.sum())

    plain, elsewhere = labels(crop), labels(replace(crop, crop_class_share=0.75))
    assert sum(map(filled, plain)) > 5
    assert sum(map(filled, elsewhere)) < sum(map(filled, plain)) / 2
    assert all(filled(one) or torch.equal(one, other) for one, other in zip(plain, elsewhere, strict=True))


@both
def test_several_threads_show_the_same_pictures_as_one(load_tiny: Callable[..., Dataset], backend: str) -> None:
    one = whole_epoch(load_tiny(), backend, augmentation=VARIED, threads=1)
    two = whole_epoch(load_tiny(), backend, augmentation=VARIED, threads=2)
    assert torch.equal(one[0], two[0])


def test_threads_that_make_pictures_live_as_long_as_the_loader_and_use_one_torch_thread(
    load_tiny: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    computing: dict[threading.Thread, int] = {}

    def resize(*given: Any, **options: Any) -> Tensor:
        computing[threading.current_thread()] = torch.get_num_threads()
        return interpolate(*given, **options)

    def of_new_thread() -> int:
        with ThreadPoolExecutor(max_workers=1) as pool:
            return pool.submit(torch.get_num_threads).result()

    interpolate = torch.nn.functional.interpolate
    monkeypatch.setattr(torch.nn.functional, "interpolate", resize)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        loader = make_loader(load_tiny(), "train", batch_size=4, augmentation=VARIED, backend="torch", threads=2)
        for number in range(3):
            assert len(list(loader.epoch(number))) == len(loader)
        assert 1 <= len(computing) <= 2
        assert set(computing.values()) == {1}
        assert torch.get_num_threads() == of_new_thread() == 3, "as elsewhere"
        del loader
        for thread in computing:
            thread.join(60)
            assert not thread.is_alive()
    finally:
        torch.set_num_threads(before)


@both
def test_brightness_and_contrast_change_the_image_only(load_tiny: Callable[..., Dataset], backend: str) -> None:
    same = whole_epoch(load_tiny(), backend, augmentation=Augmentation())
    other = whole_epoch(load_tiny(), backend, augmentation=Augmentation(brightness=0.5, contrast=0.5))
    assert torch.equal(same[1], other[1])
    assert (pictures(same[0]) - pictures(other[0])).abs().max() > 10


@both
def test_hue_and_saturation_leave_grey_and_labels_alone(telling: Dataset, backend: str) -> None:
    plain, coloured = (whole_epoch(telling, backend, augmentation=each) for each in (Augmentation(), COLOURED))
    torch.testing.assert_close(pictures(coloured[0]), pictures(plain[0]), atol=0.01, rtol=0)
    assert torch.equal(coloured[1], plain[1])


def test_saturation_is_pillows_and_hues_turn_from_red_to_green() -> None:
    colours = np.random.default_rng(0).integers(60, 190, (16, 16, 3), dtype=np.uint8)
    for saturation in (0.5, 1.5):
        theirs = np.asarray(ImageEnhance.Color(Image.fromarray(colours)).enhance(saturation), dtype=float)
        ours = np.clip(colours @ np.array(turned(0, saturation)).T, 0, 255)
        assert abs(ours - theirs).max() <= 1.5  # the loader rounds twice
    for rgb in ((0.6, 0.4, 0.4), (0.4, 0.6, 0.4), (0.4, 0.4, 0.6)):
        before = colorsys.rgb_to_hsv(*rgb)[0]
        after = colorsys.rgb_to_hsv(*(np.array(turned(20, 1)) @ rgb))[0]
        assert 8 < 360 * ((after - before) % 1) < 35  # degrees of HSV are of other lengths


@both
@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("images/2.jpg", b"nonsense", "not a readable"),
        ("labels/2.png", None, "is missing"),
        ("images/2.jpg", "half", "cut short"),
        ("labels/2.png", 9, "got 9"),
    ],
)
def test_a_bad_file_ends_an_epoch_with_its_name(
    load_tiny: Callable[..., Dataset], tiny_root: Path, backend: str, name: str, data: object, message: str
) -> None:
    dataset = load_tiny()
    path = tiny_root / "train" / name
    if data is None:
        path.unlink()
    elif isinstance(data, int):
        Image.fromarray(np.full((64, 96), data, np.uint8)).save(path)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if data == "half" else data)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=message) as caught:
        whole_epoch(dataset, backend)
    assert str(path) in str(caught.value)


@pytest.mark.gpu
@both
def test_a_gpu_shows_the_same_as_the_cpu(load_tiny: Callable[..., Dataset], backend: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here")
    images, labels = whole_epoch(load_tiny(), backend, augmentation=VARIED)
    on_gpu, gpu_labels = whole_epoch(load_tiny(), backend, augmentation=VARIED, device="cuda:0")
    assert on_gpu.device.type == gpu_labels.device.type == "cuda"
    assert torch.equal(labels, gpu_labels.cpu())
    # nvJPEG rounds differently from libjpeg-turbo, most of all at sharp edges of colour.
    assert (pictures(images) - pictures(on_gpu.cpu())).abs().mean() < 1.5
