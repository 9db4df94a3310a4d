"""ONNX export with static shapes.

The exporter by tracing takes 0.3-0.5 s for networks of our size, the one by `torch.export` 2-5 s. Every timed candidate
is exported first, so tracing comes first; what it cannot express goes to the slower exporter.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from nas.export.rewrites import Rewritten
from space.errors import ExportError
from space.paths import require_folded

OPSET = 17
INPUT_NAME = "image"


def onnx_bytes(network: nn.Module, size: tuple[int, int], *, labels: bool) -> bytes:
    """`network` at one input size (batch 1) as a checked ONNX graph with its weights inside.

    The input is `image` (1, 3, H, W) float32. The output is `labels` (1, H, W) int64, arg-max inside, or `logits`
    (1, C, H, W). The network is left as it came.

    Raises: ExportError when neither exporter can express the network; UserError for one in the form that is trained,
    not the one that runs.
    """
    import onnx

    require_folded(network)
    module = _Logits(network)
    training = network.training
    device = next((tensor.device for tensor in network.parameters()), torch.device("cpu"))
    image = torch.zeros(1, 3, *size, device=device)
    network.eval()
    try:
        with _hushed(), torch.no_grad():
            data = _export(module.eval(), image)
    finally:
        network.train(training)
    if labels:
        return with_labels(data)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    return data


def with_labels(graph: bytes) -> bytes:
    """A graph of `logits` (1, C, H, W) with the arg-max behind it: its output is `labels` (1, H, W) int64."""
    import onnx
    from onnx.helper import make_node, make_tensor_value_info

    model = onnx.load_from_string(graph)
    (logits,) = model.graph.output
    batch, _, height, width = (axis.dim_value for axis in logits.type.tensor_type.shape.dim)
    model.graph.node.append(make_node("ArgMax", [logits.name], ["labels"], axis=1, keepdims=0, select_last_index=0))
    model.graph.output.remove(logits)
    model.graph.output.append(make_tensor_value_info("labels", onnx.TensorProto.INT64, [batch, height, width]))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def versions() -> dict[str, str]:
    """Versions of the libraries that decide what a graph is."""
    return {"torch": str(torch.__version__)}


class _Logits(nn.Module):
    """The network, as it is traced."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_exporting():  # the slower exporter refuses the mode, and has adaptive pooling
            return self.network(image)  # type: ignore[no-any-return]
        with Rewritten():
            return self.network(image)  # type: ignore[no-any-return]


def _export(module: nn.Module, image: torch.Tensor) -> bytes:
    names: dict[str, Any] = {"input_names": [INPUT_NAME], "output_names": ["logits"]}
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
        raise ExportError(
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
