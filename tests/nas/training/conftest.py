"""A data set of twelve tiny pictures and a narrow network, both real."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas.data import Dataset, Split
from nas.data.dataset import label_map
from space import Architecture

SIZE = (32, 48)

NARROW = """
stem: {kind: cat, width: 8}
stages:
- {block: nonbt, width: 12, depth: 1, stride: 2, factorization: all, down: cat, dropout: 0.03}
- {block: nonbt, width: 16, depth: 1, stride: 2, rates: [2], factorization: all, down: cat, dropout: 0.2}
context: null
decoder:
  kind: deconv
  projection: 0
  steps:
  - {width: 12, depth: 0, block: nonbt}
  - {width: 8, depth: 0, block: nonbt}
head: {kind: deconv2}
activation: prelu
levels: 1
norm_epsilon: 0.001
bias: true
align_corners: false
auxiliary:
- {stage: 1, width: 0, weight: 0.4}
"""


def draw_scene(folder: Path, name: str, random: np.random.Generator) -> tuple[Path, Path]:
    """A dark ground, a bright box and a red bar, with a strip of void at the left; labels 0, 1, 2 and 255."""
    height, width = SIZE
    label = np.zeros(SIZE, dtype=np.uint8)
    top, left = random.integers(0, height - 12), random.integers(4, width - 16)
    label[top : top + 12, left : left + 16] = 1
    row = random.integers(0, height - 4)
    label[row : row + 4] = 2
    colours = np.array([[60, 70, 60], [200, 200, 210], [190, 40, 40]])
    image = colours[label] + random.normal(0, 12, (*SIZE, 3))
    label[:, :2] = 255
    paths = folder / f"{name}.png", folder / f"{name}_label.png"
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(paths[0])
    Image.fromarray(label).save(paths[1])
    return paths


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("scenes")
    random = np.random.default_rng(0)
    pairs = [draw_scene(folder, f"{index:02}", random) for index in range(12)]
    images, labels = zip(*pairs, strict=True)
    return Dataset(
        name="boxes",
        classes=("ground", "box", "bar"),
        palette=((60, 70, 60), (200, 200, 210), (190, 40, 40)),
        label_map=label_map(3),
        train=Split(images=images[:8], labels=labels[:8]),
        validation=Split(images=images[8:], labels=labels[8:]),
        size=SIZE,
    )


@pytest.fixture(scope="session")
def architecture() -> Architecture:
    """ERFNet's shape, narrow, with everything a training has to carry: dropout, slopes, an auxiliary head."""
    return Architecture.from_yaml(NARROW, "narrow")
