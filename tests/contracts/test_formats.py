"""Contract of export formats: every file in nas/export/formats is tested here."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from nas.errors import ExportError
from nas.export import formats
from nas.export.comparison import logits_of, same_labels
from nas.export.formats import Exported, Format, files_of, onnx
from nas.runs.checked_export import export_checked
from space.errors import UserError

ON_A_GPU, CONVERTED = ("tensorrt",), ("tflite",)
SIZE = (45, 84)
FORMATS = [
    pytest.param(each, marks=[pytest.mark.gpu] * (each in ON_A_GPU) + [pytest.mark.slow] * (each in CONVERTED))
    for each in formats.names()
]


@pytest.fixture
def form(request: pytest.FixtureRequest) -> Format:
    found = formats.load(request.param)
    missing = found.missing()
    if missing is not None:
        pytest.skip(missing)
    return found


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.PReLU(8),
        nn.Conv2d(8, 5, 1),
        nn.Upsample(SIZE, mode="bilinear"),
    ).eval()


def images() -> torch.Tensor:
    return torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def test_each_file_is_a_format() -> None:
    files = {module.name.replace("_", "-") for module in pkgutil.iter_modules(formats.__path__)}
    assert set(formats.names()) >= files >= {"onnx", "openvino", "tensorrt", "tflite"}


@pytest.mark.parametrize("form", FORMATS, indirect=True)
def test_an_exported_file_gives_the_outputs_of_pytorch(form: Format, tmp_path: Path) -> None:
    exported = network()
    for name, labels in (("labels", True), ("logits", False)):
        path = tmp_path / name / f"net.of.mine{form.SUFFIXES[0]}"
        check = export_checked(exported, path, images(), labels=labels, form=form)
        assert check.same_labels == 1.0
        assert check.max_abs_difference is not None
        assert set(path.parent.iterdir()) == set(files_of(form, path))
        output = form.open_file(path)(images()[:1].numpy())
        expected = logits_of(exported, images()[:1])
        if labels:
            assert output.shape == (1, *SIZE)
            assert same_labels(expected, torch.from_numpy(output)) == 1.0
        else:
            np.testing.assert_allclose(output, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("form", FORMATS, indirect=True)
def test_files_are_replaced_whole(form: Format, tmp_path: Path) -> None:
    path = tmp_path / f"net{form.SUFFIXES[0]}"
    for file in files_of(form, path):
        file.write_bytes(b"an earlier one")
    export_checked(network(), path, images(), labels=True, form=form)
    assert set(tmp_path.iterdir()) == set(files_of(form, path))
    assert all(b"an earlier one" not in file.read_bytes() for file in tmp_path.iterdir())
    assert form.open_file(path)(images()[:1].numpy()).shape == (1, *SIZE)


class Spoiling:
    """A format of two files whose converter gets the network wrong."""

    TITLE, LIBRARY, SUFFIXES = "spoilt", "nothing", (".net", ".weights")

    def missing(self) -> None:
        """Nothing is missing: the format can be written."""

    def write(self, exported: Exported, path: Path) -> None:
        path.write_bytes(exported.graph)
        path.with_suffix(".weights").write_bytes(b"1")

    def open_file(self, path: Path) -> formats.Call:
        run = onnx.open_file(path)
        return lambda image: run(image) * 1.01


@pytest.mark.parametrize("before", [(), (b"a net", b"its weights")])
def test_an_export_that_differs_from_pytorch_leaves_earlier_files_unchanged(
    before: tuple[bytes, ...], tmp_path: Path
) -> None:
    files = tmp_path / "a.net", tmp_path / "a.weights"
    for file, data in zip(files, before, strict=False):
        file.write_bytes(data)
    with pytest.raises(ExportError, match=r"spoilt: expected PyTorch's logits .* nothing was written"):
        export_checked(network(), files[0], images(), labels=True, form=Spoiling())
    assert sorted(file.read_bytes() for file in tmp_path.iterdir()) == sorted(before)


def test_an_unknown_format_is_refused_with_the_known_formats() -> None:
    with pytest.raises(UserError, match=r"expected one of onnx, openvino, tensorrt.*; got 'coreml'"):
        formats.load("coreml")


def test_a_format_of_another_package_is_found_without_loading_a_heavy_library(
    run: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "brought.py").write_text(
        "TITLE, LIBRARY, SUFFIXES, write, open_file = 'A board', 'its library', ('.board',), print, print\n"
        "missing = lambda: 'buy the board'\n"
    )
    (tmp_path / "brought-1.0.dist-info").mkdir()
    (tmp_path / "brought-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1.0\n")
    (tmp_path / "brought-1.0.dist-info" / "entry_points.txt").write_text("[framebudget.formats]\nboard = brought\n")
    program = (
        "import sys; from nas.export import formats; found = [formats.load(each) for each in formats.names()]\n"
        "print(*formats.names(), formats.load('board').missing())\n"
        "heavy = 'torch', 'onnx', 'onnxruntime', 'openvino', 'tensorrt', 'litert_torch', 'ai_edge_litert'\n"
        "print([each for each in heavy if each in sys.modules])"
    )
    told = run(program, tmp_path).splitlines()
    assert told == ["onnx openvino tensorrt tflite board buy the board", "[]"]
