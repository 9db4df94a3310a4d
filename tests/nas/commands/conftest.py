"""The command line in this process, on tiny real pictures and a tiny network."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import space
from nas.cli import main
from space.scale import scale_width

HEIGHT, WIDTH = 64, 96
CLASSES = ("ground", "box", "sky")
COLOURS = np.array([[70, 90, 60], [200, 40, 40], [150, 190, 240]])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    def refusal(self) -> str:
        """The one line of a user's mistake."""
        assert self.code == 2, self.out + self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


Nas = Callable[..., Answer]


@contextlib.contextmanager
def one_core(cache: Path) -> Iterator[None]:
    """As on a machine with one core (several threads on cores that others use crawl), with a cache of its own."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        os.sched_setaffinity(0, {max(cores)})
        torch.set_num_threads(1)
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)
            torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def single_core(cache: Path) -> Callable[[], contextlib.AbstractContextManager[None]]:
    """`one_core`, for work that is not a command."""
    return lambda: one_core(cache)


@pytest.fixture(autouse=True)
def on_one_core(cache: Path) -> Iterator[None]:
    with one_core(cache):
        yield


@pytest.fixture(scope="session")
def nas(cache: Path) -> Nas:
    """`nas(words...)` runs one command and gives its answer."""

    def run(*words: str | Path) -> Answer:
        out, err = io.StringIO(), io.StringIO()
        with one_core(cache), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = main([str(word) for word in words])
            except SystemExit as end:  # argparse: --help, or words that it does not know
                code = int(end.code or 0)
        return Answer(code=code, out=out.getvalue(), err=err.getvalue())

    return run


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
def trained(nas: Nas, small: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `nas train` leaves after one epoch. Not to be changed."""
    out = tmp_path_factory.mktemp("trained") / "out"
    answer = nas("train", small, "--data", f"folder:{pictures}", "--input", "64x96", "--epochs", "1", "--out", out)
    assert answer.code == 0, answer.err
    return out
