"""ONNX export with static shapes, checked against PyTorch.

The exporter by tracing takes 0.3-0.5 s for networks of our size, the one by `torch.export` 2-5 s. Export is on the
way of every timed candidate, so tracing comes first; what it cannot express goes to the slower exporter.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from space.errors import UserError

OPSET = 17
INPUT_NAME = "image"
SAME_LABELS = 0.999  # least share of pixels with the same label, beyond floating-point ties
TIE_FP32 = 1e-4  # classes whose logits differ by less than this share of the logits' range are a tie


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a graph is from PyTorch: largest difference of logits (None for a graph of labels), and labels."""

    max_abs_difference: float | None
    same_labels: float  # share of pixels with the same label, ties at floating-point level counted as the same


def onnx_bytes(network: nn.Module, size: tuple[int, int], *, labels: bool) -> bytes:
    """`network` at one input size (batch 1) as a checked ONNX graph with its weights inside.

    The input is `image` (1, 3, H, W) float32. The output is `labels` (1, H, W) int64, arg-max inside, or `logits`
    (1, C, H, W). The network is left as it came.

    Raises: UserError when neither exporter can express the network.
    """
    import onnx

    module = _Labels(network) if labels else _Logits(network)
    training = network.training
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    image = torch.zeros(1, 3, *size, device=device)
    network.eval()
    try:
        with _hushed(), torch.no_grad():
            data = _export(module.eval(), image, "labels" if labels else "logits")
    finally:
        network.train(training)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    return data


def compare_onnx(network: nn.Module, graph: bytes, image: torch.Tensor) -> Agreement:
    """How well the graph, run by ONNX Runtime, agrees with `network` on `image` (1, 3, H, W) float32 on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # others may need the cores
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    output = torch.from_numpy(session.run(None, {INPUT_NAME: image.contiguous().numpy()})[0])
    expected = logits_of(network, image)
    if output.ndim == 3:
        return Agreement(max_abs_difference=None, same_labels=same_labels(expected, output))
    difference = float((output - expected).abs().max())
    return Agreement(max_abs_difference=difference, same_labels=same_labels(expected, output.argmax(1)))


def logits_of(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Logits (1, C, H, W) of `network` in evaluation mode; its mode is left as it came."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits: torch.Tensor = network(image)
    finally:
        network.train(training)
    return logits


def same_labels(logits: torch.Tensor, labels: torch.Tensor, tie: float = TIE_FP32) -> float:
    """Share of pixels whose label in `labels` (N, H, W) is a best class of `logits` (N, C, H, W).

    A class is best when its logit is the largest or below it by at most `tie` of the whole range of logits: which of
    two such classes wins is rounding, and an untrained network has many.
    """
    if labels.shape != logits[:, 0].shape:
        return 0.0
    chosen = logits.gather(1, labels.long().unsqueeze(1)).squeeze(1)  # (N, H, W)
    margin = tie * float(logits.max() - logits.min())
    return float((chosen >= logits.amax(1) - margin).float().mean())


class _Rewritten(TorchFunctionMode):
    """While the network is traced, three operations are written as others that give the same.

    Adaptive average pooling is two matrix products: the exporter refuses grids that do not divide the feature map. Each
    axis is pooled alone, so pooling equals a product with one constant matrix per axis.

    PReLU is `a x + (1 - a) relu(x)`. ONNX Runtime's own PRelu branches on the sign of every value and leaves the layout
    its convolutions use: its time hangs on the image, and a network with it takes up to twice as long. The sum has no
    branches, and OpenVINO is as fast with it as with its own.

    Bilinear shrinking to a half or a quarter is average pooling, to anything else two matrix products. ONNX Runtime's
    own Resize of an image takes 20 times as long: a quarter of the latency of a SwiftNet pyramid.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.adaptive_avg_pool2d:
            return _adaptive_average_pool(*args, **(kwargs or {}))
        if func is nn.functional.prelu:
            return _prelu(*args, **(kwargs or {}))
        if func is nn.functional.interpolate:
            return _interpolate(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


class _Logits(nn.Module):
    """The network, as it is traced."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():  # the slower exporter refuses the mode, and has adaptive pooling
            return self.network(image)  # type: ignore[no-any-return]
        with _Rewritten():
            return self.network(image)  # type: ignore[no-any-return]


class _Labels(nn.Module):
    """The network and the arg-max behind it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.logits = _Logits(network)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits(image).argmax(1)  # type: ignore[no-any-return]


def _adaptive_average_pool(x: torch.Tensor, output_size: int | tuple[int | None, int | None]) -> torch.Tensor:
    height, width = (int(length) for length in x.shape[-2:])
    grid = (output_size, output_size) if isinstance(output_size, int) else output_size
    rows = _pooling_matrix(height, grid[0] or height).to(x)  # (grid height, H)
    columns = _pooling_matrix(width, grid[1] or width).to(x)  # (grid width, W)
    return rows @ (x @ columns.t())


def _prelu(x: torch.Tensor, slopes: torch.Tensor) -> torch.Tensor:
    """`slopes` (C) or (1), for `x` (N, C, H, W)."""
    slope = slopes.view(1, -1, 1, 1)
    return slope * x + (1 - slope) * x.relu()


def _interpolate(
    usual: Any,
    x: torch.Tensor,
    size: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    **others: Any,
) -> Any:
    """`torch.nn.functional.interpolate`, written as something faster where it shrinks by linear interpolation."""
    before = tuple(int(length) for length in x.shape[-2:])
    fits = mode == "bilinear" and isinstance(size, tuple) and not any(others.values())
    if not fits or any(new > old for old, new in zip(before, size, strict=True)):
        return usual(x, size=size, mode=mode, align_corners=align_corners, **others)
    factors = {old / new for old, new in zip(before, size, strict=True)}
    factor = min(factors)
    if len(factors) == 1 and factor >= 2 and factor % 2 == 0 and not align_corners:
        # Every new pixel is the mean of the two middle ones of `factor`, on each axis.
        first = int(factor) // 2 - 1
        return nn.functional.avg_pool2d(x[..., first:, first:] if first else x, 2, stride=int(factor))
    rows, columns = (
        _interpolation_matrix(old, new, bool(align_corners)) for old, new in zip(before, size, strict=True)
    )
    return rows.to(x) @ (x @ columns.to(x).t())


def _interpolation_matrix(length: int, new: int, align_corners: bool) -> torch.Tensor:
    """(new, length): linear interpolation along one axis, as PyTorch does it without antialiasing."""
    if align_corners:
        place = np.arange(new) * ((length - 1) / max(new - 1, 1))
    else:
        place = np.maximum((np.arange(new) + 0.5) * (length / new) - 0.5, 0)
    left = np.minimum(place.astype(np.int64), length - 1)
    share = place - left
    matrix = np.zeros((new, length), dtype=np.float32)
    matrix[np.arange(new), left] += 1 - share
    matrix[np.arange(new), np.minimum(left + 1, length - 1)] += share
    return torch.from_numpy(matrix)


def _pooling_matrix(length: int, cells: int) -> torch.Tensor:
    """Cell i averages positions floor(i * length / cells) up to ceil((i + 1) * length / cells), as PyTorch does."""
    matrix = np.zeros((cells, length), dtype=np.float32)
    for cell in range(cells):
        first, last = cell * length // cells, -(-(cell + 1) * length // cells)
        matrix[cell, first:last] = 1 / (last - first)
    return torch.from_numpy(matrix)


def _export(module: nn.Module, image: torch.Tensor, output: str) -> bytes:
    names: dict[str, Any] = {"input_names": [INPUT_NAME], "output_names": [output]}
    buffer = io.BytesIO()
    try:
        torch.onnx.export(module, (image,), cast(Any, buffer), dynamo=False, opset_version=OPSET, **names)
        return buffer.getvalue()
    except (torch.onnx.errors.OnnxExporterError, TypeError, RuntimeError) as refusal:
        reason = str(refusal).partition("\n")[0]
    try:
        program = torch.onnx.export(module, (image,), dynamo=True, verbose=False, **names)
        assert program is not None
        data: bytes = program.model_proto.SerializeToString()
        return data
    except (torch.onnx.errors.OnnxExporterError, ImportError) as refusal:
        raise UserError(
            f"cannot be written as ONNX: {reason}; {str(refusal).partition(chr(10))[0]}; use operations that ONNX has"
        ) from None


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Exporters print graphs and warn about what is intended here (static shapes, the exporter by tracing)."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
