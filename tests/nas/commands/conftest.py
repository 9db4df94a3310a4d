"""Tiny real pictures, a tiny network, and what is trained of it; every command runs as on a machine with one core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import space
from space.scale import scale_width

HEIGHT, WIDTH = 64, 96
CLASSES = ("ground", "box", "sky")
COLOURS = np.array([[70, 90, 60], [200, 40, 40], [150, 190, 240]])


@pytest.fixture(autouse=True)
def on_one_core(single_core: Callable[[], contextlib.AbstractContextManager[None]]) -> Iterator[None]:
    with single_core():
        yield


def draw(folder: Path, split: str, index: int) -> None:
    """Sky over ground and a red box, with some void; a picture that is easy to learn."""
    random = np.random.default_rng([index, len(split)])
    label = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    label[: random.integers(20, 36)] = 2
    top, left = random.integers(10, 40), random.integers(4, 60)
    label[top : top + 20, left : left + 28] = 1
    image = COLOURS[label] + random.normal(0, 10, (HEIGHT, WIDTH, 3))
    label[:, :3] = 255
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / split / "images" / f"{index}.jpg", quality=95)
    Image.fromarray(label).save(folder / split / "labels" / f"{index}.png")


def make_pictures(root: Path) -> Path:
    for split, count in (("train", 6), ("val", 3)):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(count):
            draw(root, split, index)
    (root / "classes.txt").write_text("\n".join(CLASSES))
    return root


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of the layout `folder`: six training pairs and three for validation."""
    return make_pictures(tmp_path_factory.mktemp("pictures") / "root")


@pytest.fixture
def own_pictures(tmp_path: Path) -> Path:
    """The same pictures, to be damaged."""
    return make_pictures(tmp_path / "pictures")


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of NDNet's width, as a YAML file."""
    file = tmp_path_factory.mktemp("architectures") / "small.yaml"
    file.write_text(scale_width(space.load("ndnet45-fcn32"), 0.25).to_yaml())
    return file


@pytest.fixture(scope="session")
def trained(nas: Callable[..., Any], small: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `nas train` leaves after one epoch. Not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "out"
    nas("train", small, "--data", f"folder:{pictures}", "--input", "64x96", "--epochs", "1", "--out", out).done()
    return out
