"""TFLite without its libraries: refused exports and files, and rewritten transposed convolutions."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import pytest
import torch
from torch import nn

from nas.errors import ExportError
from nas.export.formats import Exported, tflite

ERRORS = [
    ImportError("no name 'x'"),
    AttributeError("no attribute 'y'"),
    TypeError("an argument"),
    ValueError("a shape"),
    RuntimeError("an operation\nis missing"),
]


def standing_in(monkeypatch: pytest.MonkeyPatch, name: str, function: str, error: Exception | None) -> None:
    """Put in place a library whose function raises the error, or, for None, a library that is missing."""

    def refuse(*arguments: object, **more: object) -> NoReturn:
        print("the library tells a step")
        assert error is not None
        raise error

    module = ModuleType(name)
    setattr(module, function, refuse)
    if "." in name:
        monkeypatch.setitem(sys.modules, name.partition(".")[0], ModuleType(name.partition(".")[0]))
    monkeypatch.setitem(sys.modules, name, None if error is None else module)


@pytest.mark.parametrize("error", [None, *ERRORS])
def test_an_unsuitable_converter_is_reported_and_leaves_the_process_unchanged(
    error: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    standing_in(monkeypatch, "litert_torch", "convert", error)
    exported = Exported(network=nn.Conv2d(3, 2, 1), size=(8, 8), labels=True, graph=b"")
    before, stdout = dict(os.environ), sys.stdout
    with pytest.raises(ExportError, match=r"TFLite cannot be written \(.+\); try another version of litert-torch"):
        tflite.write(exported, tmp_path / "net.tflite")
    assert dict(os.environ) == before
    assert sys.stdout is stdout
    assert "tells a step" not in capsys.readouterr().out


@pytest.mark.parametrize("error", [None, *ERRORS])
def test_a_file_that_cannot_be_opened_is_reported(
    error: Exception | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    standing_in(monkeypatch, "ai_edge_litert.interpreter", "Interpreter", error)
    with pytest.raises(ExportError, match=r"TFLite cannot be read back \(.+\); try another version of ai-edge-litert"):
        tflite.open_file(tmp_path / "net.tflite")


@pytest.mark.parametrize(("kernel", "padding", "more"), [(3, 1, 0), (3, 1, 1), (4, 1, 0), ((3, 5), (1, 2), (0, 1))])
def test_rewritten_cropped_transposed_convolutions_give_the_same_outputs(
    kernel: object, padding: object, more: object
) -> None:
    layer = nn.ConvTranspose2d(3, 4, kernel, stride=2, padding=padding, output_padding=more)  # type: ignore[arg-type]
    image = torch.randn(1, 3, 7, 9, generator=torch.Generator().manual_seed(0))
    cropped = tflite._with_cropped_deconvolutions(nn.Sequential(layer))
    with torch.no_grad():
        torch.testing.assert_close(cropped(image), layer(image))


def test_an_output_padding_beyond_the_crop_is_refused() -> None:
    layer = nn.ConvTranspose2d(3, 4, 2, stride=2, output_padding=1)
    with pytest.raises(ExportError, match=r"0: expected an output_padding of \(0, 0\) at most.*got \(1, 1\)"):
        tflite._with_cropped_deconvolutions(nn.Sequential(layer))
