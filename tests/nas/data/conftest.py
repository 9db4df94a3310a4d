"""A tiny data set on disk, in the layout of `folder`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import Dataset, DataSpec, load

HEIGHT, WIDTH = 64, 96
CLASSES = ("ground", "wall", "sky", "tree")


def draw_label(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Rectangles of classes 0..3 and some void (255)."""
    rng = np.random.default_rng(seed)
    label = np.zeros((height, width), dtype=np.uint8)
    for value in (1, 2, 3, 255):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 30)
        label[top : top + rng.integers(8, 20), left : left + rng.integers(8, 30)] = value
    return label


def draw_image(label: np.ndarray, seed: int) -> np.ndarray:
    """A smooth picture whose brightness depends on its label."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(label.shape[::-1], Image.Resampling.BICUBIC))
    return (smooth // 2 + (label % 5 * 20)[..., None]).astype(np.uint8)


@pytest.fixture
def tiny_root(tmp_path: Path) -> Path:
    """Five training pairs (JPEG) and three validation pairs (PNG) of 64x96 pixels."""
    root = tmp_path / "tiny"
    for split, count, suffix in (("train", 5, ".jpg"), ("val", 3, ".png")):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            label = draw_label(index)
            Image.fromarray(draw_image(label, index)).save(root / split / "images" / f"{index}{suffix}", quality=90)
            Image.fromarray(label).save(root / split / "labels" / f"{index}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


@pytest.fixture
def load_tiny(tiny_root: Path) -> Callable[..., Dataset]:
    """Loads the tiny data set at a size."""

    def load_at(size: tuple[int, int] = (HEIGHT, WIDTH)) -> Dataset:
        return load(DataSpec(name="folder", root=str(tiny_root), size=size))

    return load_at
