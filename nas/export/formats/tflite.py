"""TFLite: a file for LiteRT, made from the PyTorch network by LiteRT's own converter, in full precision."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.errors import ExportError
from nas.export.formats import to_install
from nas.host.words import one_line

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import nn

    from nas.export.formats import Call, Exported

TITLE = "TFLite"
LIBRARY = "litert-torch"
SUFFIXES: tuple[str, ...] = (".tflite",)
MODULES = {"litert_torch": LIBRARY, "ai_edge_litert": "ai-edge-litert"}
REFUSALS = (ImportError, AttributeError, TypeError, ValueError, RuntimeError)
"""Errors of the libraries for networks or files that they cannot handle, or if their version does not fit torch."""
MOST_WORDS = 300  # characters of a library's message
LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # environment variable


def missing() -> str | None:
    lacking = [package for module, package in MODULES.items() if to_install(module) is not None]
    return f"pip install {' '.join(lacking)}" if lacking else None


def write(exported: Exported, path: Path) -> None:
    import torch

    network = _with_cropped_deconvolutions(exported.network)
    module = _labelling(network) if exported.labels else network
    try:
        with _hushed():
            import litert_torch

            litert_torch.convert(module.eval(), (torch.zeros(1, 3, *exported.size),)).export(str(path))
    except REFUSALS as error:
        raise _refused("written", LIBRARY, error) from None


def open_file(path: Path) -> Call:
    try:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(model_path=str(path), num_threads=1)  # other work may need the cores
        interpreter.allocate_tensors()
        (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()
    except REFUSALS as error:
        raise _refused("read back", MODULES["ai_edge_litert"], error) from None

    def run(image: NDArray[np.float32]) -> NDArray[Any]:
        interpreter.set_tensor(given["index"], image)
        interpreter.invoke()
        output: NDArray[Any] = interpreter.get_tensor(found["index"])
        return output

    return run


def _refused(what: str, library: str, error: Exception) -> ExportError:
    reason = one_line(error, MOST_WORDS) or type(error).__name__
    return ExportError(f"{TITLE} cannot be {what} ({reason}); try another version of {library}")


def _labelling(network: nn.Module) -> nn.Module:
    """A module from images (N, 3, H, W) to labels (N, H, W)."""
    from torch import nn

    from space.network import labels_of

    class Labelling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return labels_of(self.network, image)

    return Labelling()


def _with_cropped_deconvolutions(network: nn.Module) -> nn.Module:
    """A copy whose transposed convolutions have no padding and are cropped instead, as TFLite supports them.

    Raises: ExportError when one has more output padding than such a crop leaves.
    """
    from torch import nn

    copied = copy.deepcopy(network).cpu().eval()
    for name, module in copied.named_modules():
        if isinstance(module, nn.ConvTranspose2d):
            padding = [int(str(length)) for length in module.padding]
            if any(more > length for more, length in zip(module.output_padding, padding, strict=True)):
                raise ExportError(
                    f"{TITLE} cannot be written: {name}: expected an output_padding of {tuple(module.padding)} at most "
                    f"(its padding), got {tuple(module.output_padding)}; use another format"
                )
            module.forward = functools.partial(_cropped, module)  # type: ignore[method-assign]
    return copied


def _cropped(layer: nn.ConvTranspose2d, image: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
    """The output of a transposed convolution, computed without padding and then cropped."""
    from torch.nn import functional

    whole = functional.conv_transpose2d(
        image, layer.weight, layer.bias, stride=layer.stride, groups=layer.groups, dilation=layer.dilation
    )
    top, left = (int(length) for length in layer.padding)
    lower, right = (int(length) for length in layer.output_padding)
    height, width = output_size or (whole.shape[-2] - 2 * top + lower, whole.shape[-1] - 2 * left + right)
    return whole[..., top : top + height, left : left + width]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Suppress the converter's reports of its steps and its warnings about its own libraries."""
    before = os.environ.get(LEVEL)
    os.environ[LEVEL] = "2" if before is None else before
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        if before is None:
            os.environ.pop(LEVEL, None)
