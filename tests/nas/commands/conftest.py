"""Tiny real pictures, a tiny network and its trained weights; every command runs as on a machine with one core."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import space
from nas.export.graph import onnx_bytes
from nas.latency.record import Latency
from nas.runs.certificate import Certificate, read_certificate
from nas.runs.trained import load_trained
from space import Architecture, strict
from space.network import Network
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
    """A copy of the same pictures, which a test may damage."""
    return make_pictures(tmp_path / "pictures")


@pytest.fixture(scope="session")
def small(shallow: Callable[[str], Architecture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quarter of NDNet's width and one block in each stage, as a YAML file."""
    file = tmp_path_factory.mktemp("architectures") / "small.yaml"
    file.write_text(scale_width(shallow("ndnet45-fcn32"), 0.25).to_yaml())
    return file


@pytest.fixture(scope="session")
def trained(nas: Callable[..., Any], small: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `nas train` leaves after one epoch; tests must not change it."""
    out = tmp_path_factory.mktemp("trained") / "out"
    nas("train", small, "--data", f"folder:{pictures}", "--input", "64x96", "--epochs", "1", "--out", out).done()
    return out


@pytest.fixture(scope="session")
def certify() -> Callable[[Path, str], None]:
    """`certify(folder, target)` writes an invented certificate of the files that are in a folder."""

    def write(folder: Path, target: str) -> None:
        latency = Latency(
            p50_milliseconds=9.0, p90_milliseconds=9.1, p99_milliseconds=9.2, ci_low_milliseconds=8.9,
            ci_high_milliseconds=9.1, samples=40, ratio=1.8, ratio_low=1.7, ratio_high=1.9, reference_milliseconds=5.0,
            raw_p50_milliseconds=9.0, target=target, height=HEIGHT, width=WIDTH, scope="all",
        )  # fmt: skip
        files = [folder / name for name in ("architecture.yaml", "weights.safetensors", "model.onnx")]
        certificate = Certificate(
            architecture=space.load(folder / "architecture.yaml").key, certified="2020-01-01", version="0",
            budget="10ms", passed=True, latency=latency, precision="fp32", protocol="none", miou=0.5,
            pixel_accuracy=0.5, class_iou={"ground": 0.5}, scored="no", data="folder", validation_images=3,
            num_classes=3, input_mean=(0.0, 0.0, 0.0), input_std=(1.0, 1.0, 1.0), parameters=1, multiply_adds=1,
            onnx_images=1, onnx_max_abs_difference=0.0, onnx_tolerance=1.0, onnx_same_labels=1.0,
            sha256={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files if file.exists()},
        )  # fmt: skip
        (folder / "certificate.yaml").write_text(strict.dump(certificate))

    return write


@pytest.fixture(scope="session")
def other(trained: Path) -> tuple[Network, bytes]:
    """The network in `trained` with its classes in another order, and its graph."""
    network = load_trained(str(trained), None).network(3)
    with torch.no_grad():
        for parameter in network.get_submodule("head.logits").parameters():
            parameter.copy_(parameter.roll(1, dims=0))
    return network, onnx_bytes(network, (HEIGHT, WIDTH), labels=True)


@pytest.fixture(scope="session")
def int8(
    trained: Path,
    other: tuple[Network, bytes],
    certify: Callable[[Path, str], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with a certificate in INT8, whose graph is another network than its weights, so that labels tell which
    one ran. Not to be changed.
    """
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("certified") / "int8")
    (folder / "data.yaml").unlink()  # its path to the data is relative to the original folder
    (folder / "model.onnx").write_bytes(other[1])
    certify(folder, "onnxruntime:int8@cpu:1")
    form = "onnxruntime:int8@cpu:1 (convolutions)"
    certificate = replace(read_certificate(folder), precision="int8", form=form)
    (folder / "certificate.yaml").write_text(strict.dump(certificate))
    return folder
