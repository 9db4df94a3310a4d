"""Windows: the part of a picture that an augmentation draws, for either loader."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas.data import MEAN, Augmentation
from nas.data.windows import Window, draw
from nas.errors import DataError


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": (4, 90)},
        {"scale": (2.0, 1.0)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 1.0, 2.0)},
        {"scale": (), "scale_sampling": "listed"},
        {"crop_class_share": 0.0},
        {"shift_pixels": -1},
        {"brightness": 1.0},
        {"saturation": 1.0},
        {"hue_degrees": 181},
    ],
)
def test_impossible_augmentations_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        Augmentation(**wrong)  # type: ignore[arg-type]


def windows(augmentation: Augmentation, source: tuple[int, int], size: tuple[int, int]) -> list[Window]:
    return [draw(augmentation, source, size, seed=0, epoch=1, number=index) for index in range(300)]


def test_windows_cover_the_requested_range_of_scales() -> None:
    drawn = windows(Augmentation(crop=(60, 80), scale=(0.5, 2.0)), (240, 480), (120, 160))
    assert min(window.height for window in drawn) < 65  # 60 / 2.0 pixels of 120 -> 240
    assert max(window.height for window in drawn) > 225
    assert all(abs(window.width * 60 * 2 - window.height * 80 * 3) <= 400 for window in drawn)
    assert all(0 <= window.top <= 240 - window.height and 0 <= window.left <= 480 - window.width for window in drawn)
    assert 100 < sum(window.flip for window in drawn) < 200


def medians_of(**how: object) -> tuple[float, float]:
    """Medians of the scale of windows, and of their side as a share of the crop's."""
    drawn = windows(Augmentation(crop=(1000, 1000), scale=(0.5, 2.0), **how), (4000, 4000), (4000, 4000))  # type: ignore[arg-type]
    sides = np.array([window.height / 1000 for window in drawn])
    return float(np.median(1 / sides)), float(np.median(sides))


def test_scales_are_drawn_as_in_papers() -> None:
    """A uniform quantity has its median in the middle of its range."""
    assert medians_of() == pytest.approx((1.0, 1.0), abs=0.1)
    assert medians_of(scale_sampling="uniform") == pytest.approx((1.25, 0.8), abs=0.1)
    assert medians_of(scale_sampling="inverse") == pytest.approx((0.8, 1.25), abs=0.1)
    listed = Augmentation(crop=(600, 600), scale=(0.75, 1.0, 1.5, 2.0), scale_sampling="listed")
    heights = [window.height for window in windows(listed, (900, 900), (900, 900))]
    assert {height: 50 < heights.count(height) < 100 for height in set(heights)} == dict.fromkeys(
        (300, 400, 600, 800), True
    )


def test_pictures_smaller_than_the_crop_are_enlarged_to_fill_it() -> None:
    small = Augmentation(crop=(60, 120), scale=(0.125, 2.0))
    plain, filled = (windows(each, (240, 320), (120, 160)) for each in (small, replace(small, fills_crop=True)))
    assert all(window.height <= 160 and window.width <= 320 and window.top >= 0 <= window.left for window in filled)
    assert {(w.height, w.width) for w in filled} <= {(160, 320)} | {(w.height, w.width) for w in plain}
    assert [w for w in plain if w.width < 320] == [w for w in filled if w.width < 320]
    assert any(window.width > 320 for window in plain)


def test_a_window_larger_than_the_image_contains_it() -> None:
    drawn = windows(Augmentation(crop=(100, 100)), (60, 80), (60, 80))
    assert all(window.top <= 0 and window.top + window.height >= 60 for window in drawn)
    assert len({window.top for window in drawn}) == 41


def test_a_shift_is_limited_in_pixels_of_the_network_size() -> None:
    drawn = windows(Augmentation(shift_pixels=2), (120, 80), (60, 80))
    assert {window.top for window in drawn} == set(range(-4, 5))
    assert {window.left for window in drawn} == set(range(-2, 3))


def test_switching_one_augmentation_leaves_the_others_alone() -> None:
    plain = windows(Augmentation(crop=(30, 40)), (60, 80), (60, 80))
    brighter = windows(Augmentation(crop=(30, 40), brightness=0.4, contrast=0.2), (60, 80), (60, 80))
    assert [(w.top, w.left, w.flip) for w in plain] == [(w.top, w.left, w.flip) for w in brighter]
    assert all(0.6 * 0.8 <= window.gain <= 1.4 * 1.2 for window in brighter)
    coloured = windows(Augmentation(crop=(30, 40), saturation=0.4, hue_degrees=20), (60, 80), (60, 80))
    assert len({window.colour for window in coloured}) == len(coloured)
    assert [replace(window, colour=None) for window in coloured] == plain


def test_contrast_turns_around_the_mean_colour() -> None:
    for window in windows(Augmentation(contrast=0.5), (60, 80), (60, 80))[:20]:
        kept = [(255 * mean - m) / s for mean, m, s in zip(MEAN, window.mean, window.std, strict=True)]
        assert kept == pytest.approx([0, 0, 0], abs=1e-6)
