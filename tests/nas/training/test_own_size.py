"""Scores at the labels' own size, compared with a second implementation in NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from nas.data import Dataset, read_image, read_label
from nas.training.metrics import ConfusionMatrix
from nas.training.own_size import View, class_scores, confusion_at_own_size, label_at_own_size, window_starts
from space.errors import UserError

Array = NDArray[np.float64]
CLASSES = 3


class Small(nn.Module):
    """A network with logits at a quarter of the size, so that each of their pixels counts."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.first, self.last = (
                nn.Conv2d(3, 6, 3, stride=2, padding=1),
                nn.Conv2d(6, CLASSES, 3, stride=2, padding=1),
            )

    def forward(self, images: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(images)))  # type: ignore[no-any-return]


def enlarged(values: Array, size: tuple[int, int]) -> Array:
    """Bilinear interpolation by centres of pixels, with repeated edges; (C, h, w) to (C, *size)."""
    for axis, length in ((1, size[0]), (2, size[1])):
        given = values.shape[axis]
        place = np.clip((np.arange(length) + 0.5) * given / length - 0.5, 0, None)
        low = np.minimum(np.floor(place).astype(int), given - 1)
        high, share = np.minimum(low + 1, given - 1), place - low
        weight = share[:, None] if axis == 1 else share[None, :]
        values = values.take(low, axis) * (1 - weight) + values.take(high, axis) * weight
    return values


def logits(network: nn.Module, pixels: Array) -> Array:
    """Logits of normalised pixels (3, h, w), at the same size."""
    with torch.no_grad():
        given = network(torch.from_numpy(pixels[None].astype(np.float32)))[0].double().numpy()
    return enlarged(given, (pixels.shape[1], pixels.shape[2]))


def by_windows(network: nn.Module, pixels: Array, window: tuple[int, int] | None) -> Array:
    if window is None:
        return logits(network, pixels)
    sides = [min(side, length) for side, length in zip(window, pixels.shape[1:], strict=True)]
    total, count = np.zeros((CLASSES, *pixels.shape[1:])), np.zeros(pixels.shape[1:])
    starts = []
    for length, side in zip(pixels.shape[1:], sides, strict=True):
        step = side * 2 // 3
        steps = max(0, -(-(length - side) // step))
        starts.append([min(index * step, length - side) for index in range(steps + 1)])
    for top, left in itertools.product(*starts):
        place = slice(top, top + sides[0]), slice(left, left + sides[1])
        total[:, *place] += logits(network, pixels[:, *place])
        count[place] += 1
    return total / count


def expected_scores(network: nn.Module, image: NDArray[np.uint8], view: View) -> Array:
    looks = []
    for scale in view.scales:
        height, width = round(view.size[0] * scale), round(view.size[1] * scale)
        seen = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)) / 255
        pixels = ((seen - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)
        looks.append(enlarged(by_windows(network, pixels, view.window), image.shape[:2]))
        if view.flip:
            mirrored = by_windows(network, pixels[:, :, ::-1].copy(), view.window)[:, :, ::-1]
            looks.append(enlarged(mirrored, image.shape[:2]))
    if len(looks) == 1:
        return looks[0]
    shares = [np.exp(look - look.max(0)) / np.exp(look - look.max(0)).sum(0) for look in looks]
    return np.mean(shares, axis=0)


def expected_iou(pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> list[float]:
    found = []
    for index in range(CLASSES):
        both = sum(int(((seen == index) & (label == index)).sum()) for seen, label in pairs)
        either = sum(int((((seen == index) & (label != 255)) | (label == index)).sum()) for seen, label in pairs)
        found.append(both / either)
    return found


VIEWS = {
    "whole": View(size=(20, 28)),
    "larger than the picture": View(size=(48, 80)),
    "flip": View(size=(20, 28), flip=True),
    "scales": View(size=(24, 32), scales=(0.75, 1.0, 1.5)),
    "windows": View(size=(32, 48), window=(16, 20)),
    "a window larger than the picture": View(size=(20, 28), window=(64, 24)),
    "all": View(size=(32, 48), window=(18, 30), scales=(0.5, 1.25), flip=True),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_scores_are_those_of_a_second_implementation(dataset: Dataset, view: View) -> None:
    network = Small()
    pairs = []
    for image_path, label_path in zip(dataset.validation.images, dataset.validation.labels, strict=True):
        image = read_image(image_path, None)
        wanted = expected_scores(network, image, view)
        with torch.no_grad():
            given = class_scores(network, image, view)
        assert given.shape == (CLASSES, *image.shape[:2])
        np.testing.assert_allclose(given.numpy(), wanted, atol=5e-6)
        pairs.append((wanted.argmax(0).astype(np.uint8), read_label(dataset, label_path, None)))
        np.testing.assert_array_equal(label_at_own_size(network, image, view), pairs[-1][0])
    told: list[int] = []
    scores = confusion_at_own_size(network, dataset, "validation", view, threads=3, count=told.append).scores()
    assert told == [1] * len(dataset.validation)
    assert scores.class_iou == pytest.approx(expected_iou(pairs), abs=1e-6)
    right = sum(int((seen == label).sum()) for seen, label in pairs)
    assert scores.pixel_accuracy == pytest.approx(
        right / sum(int((label != 255).sum()) for _, label in pairs), abs=1e-6
    )


def test_pictures_of_several_sizes_are_each_scored_at_their_own(
    dataset: Dataset, tmp_path, enlarge: Callable[..., Dataset]
) -> None:
    mixed = enlarge(dataset, tmp_path)
    labels = [read_label(mixed, path, None) for path in mixed.test.labels]
    assert len({label.shape for label in labels}) == 2
    network = Small().train()
    matrix = confusion_at_own_size(network, mixed, "test", View(size=(20, 28)))
    assert int(matrix.counts.sum()) == sum(int((label != 255).sum()) for label in labels)
    assert network.training


@pytest.fixture
def enlarge() -> Callable[..., Dataset]:
    """A data set whose test split holds a picture of its validation, and the same at half its size again."""

    def make(dataset: Dataset, folder) -> Dataset:
        paths = []
        for kind, path in (("image", dataset.validation.images[0]), ("label", dataset.validation.labels[0])):
            larger = folder / f"{kind}.png"
            picture = Image.open(path)
            picture.resize((72, 48), Image.Resampling.NEAREST).save(larger)
            paths.append((path, larger))
        return replace(dataset, test=replace(dataset.test, images=paths[0], labels=paths[1]))

    return make


@pytest.mark.parametrize(("length", "window"), [(10, 10), (10, 20), (100, 30), (101, 30), (1024, 768), (17, 16)])
def test_windows_cover_the_picture_and_overlap_by_a_third(length: int, window: int) -> None:
    starts = window_starts(length, window)
    seen = {pixel for start in starts for pixel in range(start, start + min(window, length))}
    assert seen == set(range(length))
    assert all(0 < after - before <= 2 * window / 3 for before, after in itertools.pairwise(starts))


def test_grouped_pixels_are_counted_by_group() -> None:
    matrix = ConfusionMatrix(4)
    random = np.random.default_rng(0)
    labels, seen = random.integers(0, 4, (2, 50, 60))
    matrix.update(torch.from_numpy(seen), torch.from_numpy(labels))
    groups = np.array([0, 1, 0, 2])
    grouped = matrix.grouped(groups.tolist()).scores()
    for index in range(3):
        of_label, of_seen = groups[labels] == index, groups[seen] == index
        assert grouped.class_iou[index] == pytest.approx((of_label & of_seen).sum() / (of_label | of_seen).sum())


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"scales": (1.0, 1.0)}, "scales: expected 1 to 16 different scales"),
        ({"scales": (0.0,)}, "scales: expected 0.125 to 8, got 0"),
        ({"scales": (float("nan"),)}, "scales: expected 0.125 to 8, got nan"),
        ({"window": (4, 64)}, "window: expected height and width of at least 16 pixels"),
    ],
)
def test_views_out_of_range_are_refused(numbers: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        View(size=(64, 64), **numbers)
