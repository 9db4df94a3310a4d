"""Class-uniform sampling: rare classes come up as often as others, and an epoch depends on seed and number alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas.data import (
    Augmentation,
    ClassUniform,
    Dataset,
    DataSpec,
    class_pixels,
    class_shares,
    images_of_classes,
    load,
    make_loader,
)
from nas.data.loader import _dali_is_installed
from nas.data.share import WHOLE, Share
from nas.data.showings import pixel_of, showings
from nas.data.windows import draw
from nas.errors import DataError
from nas.training import Recipe
from nas.training.classes import LabelledClasses
from nas.training.loss import class_weights

VARIED = Augmentation(crop=(16, 16), scale=(0.5, 2.0), shift_pixels=5, brightness=0.3)
IMAGES, RARE = 20, 7
CLASSES = ("ground", "common", "rare", "never")


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twenty pictures of ground and a common class, one of them with four pixels of a rare class."""
    root = tmp_path_factory.mktemp("unequal")
    for split, count in (("train", IMAGES), ("val", 2)):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            label = np.zeros((48, 64), dtype=np.uint8)
            random = np.random.default_rng(index)
            top, left = random.integers(0, 40), random.integers(0, 56)
            label[top : top + 8, left : left + 8] = 1
            if index == RARE:
                label[2:4, 60:62] = 2
            colours = np.array([[60, 90, 60], [200, 30, 30], [20, 20, 220]], dtype=np.uint8)
            Image.fromarray(colours[label]).save(root / split / "images" / f"{index:02}.png")
            Image.fromarray(label).save(root / split / "labels" / f"{index:02}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return load(DataSpec(name="folder", root=str(root), size=(48, 64)))


@pytest.fixture(scope="module")
def sampling(unequal: Dataset) -> Callable[[float], ClassUniform]:
    images = images_of_classes(class_pixels(unequal))
    return lambda share: ClassUniform(share=share, images=images)


def epoch_of(dataset: Dataset, number: int = 0, **wishes: object) -> tuple[Tensor, Tensor]:
    wishes = {"batch_size": 3, "augmentation": VARIED, "backend": "torch", **wishes}
    batches = list(make_loader(dataset, "train", **wishes).epoch(number))  # type: ignore[arg-type]
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def test_images_of_a_class_are_those_that_contain_it(unequal: Dataset) -> None:
    assert images_of_classes(class_pixels(unequal)) == (tuple(range(IMAGES)), tuple(range(IMAGES)), (RARE,), ())
    guarded = []

    class Guard:
        def __enter__(self) -> None:
            guarded.append(True)

        def __exit__(self, *error: object) -> None:
            return None

    class_pixels(unequal, Guard)
    assert guarded


def test_a_split_without_a_class_is_refused(unequal: Dataset, tmp_path: Path) -> None:
    void = tmp_path / "void.png"
    Image.fromarray(np.full((48, 64), 255, dtype=np.uint8)).save(void)
    empty = replace(unequal, train=replace(unequal.train, labels=(void,) * IMAGES))
    for asked in (class_pixels, class_shares):
        with pytest.raises(DataError, match="void everywhere"):
            asked(empty)


def test_classes_come_up_equally_often(sampling: Callable[[float], ClassUniform]) -> None:
    """Only occurring classes count; the rare class comes up in the one picture that has it."""
    for share, drawn in ((1.0, 20), (0.5, 10), (0.3, 6)):
        totals: Counter[int | None] = Counter()
        for epoch in range(30):
            shown = showings(IMAGES, sampling(share), seed=0, epoch=epoch)
            found = Counter(each.of_class for each in shown if each.of_class is not None)
            assert len(shown) == IMAGES
            assert sum(found.values()) == drawn
            assert max(found.values()) - min(found[each] for each in (0, 1, 2)) <= 1
            assert {each.index for each in shown if each.of_class == 2} <= {RARE}
            assert len({each.number for each in shown}) == IMAGES
            totals += found
        assert max(totals.values()) - min(totals.values()) <= 0.1 * drawn * 30
        assert set(totals) == {0, 1, 2}


def test_pictures_not_drawn_by_class_are_shown_as_in_usual_sampling(sampling: Callable[[float], ClassUniform]) -> None:
    without = showings(IMAGES, None, seed=3, epoch=5)
    assert showings(IMAGES, sampling(0.0), seed=3, epoch=5) == without
    with_some = showings(IMAGES, sampling(0.4), seed=3, epoch=5)
    same = [ours == theirs for ours, theirs in zip(with_some, without, strict=True)]
    assert sum(same) == 12
    assert [each.of_class is None for each in with_some] == same


def test_seeds_and_epochs_differ_and_repeat(sampling: Callable[[float], ClassUniform]) -> None:
    def indices(seed: int, epoch: int) -> list[int]:
        return [each.index for each in showings(IMAGES, sampling(0.5), seed=seed, epoch=epoch)]

    assert indices(1, 2) == indices(1, 2)
    assert len({tuple(indices(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_a_rare_class_is_seen_about_as_often_as_others(
    unequal: Dataset, sampling: Callable[[float], ClassUniform]
) -> None:
    """Networks see crops of a twelfth of the picture, shifted, at scales that lose no pixel."""
    augmentation = replace(VARIED, scale=(1.0, 2.0))

    def seen(class_uniform: ClassUniform | None) -> list[int]:
        wishes = {"augmentation": augmentation, "class_uniform": class_uniform}
        labels = torch.cat([epoch_of(unequal, number, **wishes)[1] for number in range(6)])
        return [int((labels == each).flatten(1).any(1).sum()) for each in range(3)]

    *_, rare = seen(None)
    assert rare <= 2
    *_, common, rare = seen(sampling(1.0))
    assert rare >= 40 - 2, "in every window that is drawn for it"
    assert 40 - 2 <= common <= 3 * rare


def test_a_window_holds_its_pixel_wherever_the_pixel_is() -> None:
    """All windows that hold the pixel are equally likely; without a pixel windows are drawn as usual."""
    wide = Augmentation(crop=(20, 30), shift_pixels=4)
    found = set()
    for number in range(400):
        pixel = (int(number * 7 % 60), int(number * 13 % 80))
        window = draw(wide, (60, 80), (60, 80), seed=0, epoch=0, number=number, holding=pixel)
        assert window.top <= pixel[0] < window.top + window.height
        assert window.left <= pixel[1] < window.left + window.width
        free = draw(wide, (60, 80), (60, 80), seed=0, epoch=0, number=number)
        assert (window.height, window.width, window.flip) == (free.height, free.width, free.flip)
        assert -4 <= free.top <= 44
        if 24 <= pixel[0] < 36:
            found.add(pixel[0] - window.top)
    assert found >= {0, 19}, "at the edges of the window too"
    whole = draw(Augmentation(), (60, 80), (60, 80), seed=0, epoch=0, number=1, holding=(59, 79))
    assert (whole.top, whole.left, whole.height, whole.width) == (0, 0, 60, 80)


def test_every_pixel_of_a_class_is_equally_likely() -> None:
    label = np.zeros((4, 6), dtype=np.uint8)
    label[1, 2] = label[3, 5] = 9
    found = Counter(pixel_of(label, 9, seed=0, epoch=0, number=number) for number in range(200))
    assert set(found) == {(1, 2), (3, 5)}
    assert 70 < found[1, 2] < 130
    assert pixel_of(label, 8, seed=0, epoch=0, number=0) is None


@pytest.mark.skipif(not _dali_is_installed(), reason="DALI is missing")
def test_both_backends_show_the_same(unequal: Dataset, sampling: Callable[[float], ClassUniform]) -> None:
    ours = epoch_of(unequal, 3, class_uniform=sampling(0.5))
    theirs = epoch_of(unequal, 3, class_uniform=sampling(0.5), backend="dali")
    assert torch.equal(ours[1], theirs[1])
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))
    torch.testing.assert_close(ours[0][inside], theirs[0][inside], atol=0.02, rtol=0)


def test_several_processes_share_the_batches_of_one_process(
    unequal: Dataset, sampling: Callable[[float], ClassUniform]
) -> None:
    def labels(share: Share) -> list[Tensor]:
        loader = make_loader(
            unequal,
            "train",
            batch_size=6,
            augmentation=VARIED,
            backend="torch",
            share=share,
            class_uniform=sampling(0.5),
        )
        return [labels for _, labels in loader.epoch(1)]

    whole, shares = labels(WHOLE), [labels(Share(rank=rank, count=2)) for rank in (0, 1)]
    for place, batch in enumerate(whole):
        assert torch.equal(torch.cat([share[place] for share in shares]), torch.cat([batch[0::2], batch[1::2]]))


def test_a_class_uniform_share_of_zero_shows_the_same_bits(
    unequal: Dataset, sampling: Callable[[float], ClassUniform]
) -> None:
    with_none, without = epoch_of(unequal, class_uniform=sampling(0.0)), epoch_of(unequal)
    assert all(torch.equal(*pair) for pair in zip(with_none, without, strict=True))


def test_a_training_counts_the_pixels_of_its_labels_once(unequal: Dataset) -> None:
    """Stages that use class weights or class-uniform sampling share one count; without such a stage none is made."""
    entered = []

    class Guard:
        def __enter__(self) -> None:
            entered.append(True)

        def __exit__(self, *error: object) -> None:
            return None

    plain = Recipe(optimizer="adamw", learning_rate=0.01, epochs=1, batch_size=2)
    asking = replace(plain, class_uniform=0.5, class_weighting=1.1)
    classes = LabelledClasses(replace(unequal, cache_gigabytes=0), Guard)
    assert classes.uniform(plain) is classes.weights(plain, torch.device("cpu")) is None
    assert not entered
    assert classes.uniform(asking) == ClassUniform(share=0.5, images=images_of_classes(class_pixels(unequal)))
    once = len(entered)
    assert once > 0
    weights = classes.weights(replace(asking, class_weighting=1.2), torch.device("cpu"))
    assert weights is not None
    torch.testing.assert_close(weights, class_weights(class_shares(unequal).tolist(), 1.2))
    assert len(entered) == once
