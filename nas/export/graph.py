"""ONNX export with static shapes.

The exporter based on tracing takes 0.3-0.5 s for networks of our size, the one based on `torch.export` 2-5 s. Every
timed candidate is exported, so tracing is tried first; networks that it cannot express go to the slower exporter.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, TextIO, cast

import torch
from torch import nn

from nas.errors import ExportError
from nas.export.rewrites import Rewritten
from space.network import Network
from space.paths import require_folded

OPSET = 17
INPUT_NAME = "image"
COARSE = "coarse_logits"
"""Name of the logits before they are repeated to the size of the image."""


def onnx_bytes(network: nn.Module, size: tuple[int, int], *, labels: bool) -> bytes:
    """`network` at one input `size` (H, W), batch 1, as a checked ONNX graph that contains its weights.

    The input is `image` (1, 3, H, W) float32. The output is `labels` (1, H, W) int64, with arg-max in the graph, or
    `logits` (1, C, H, W). The network is not changed.

    Raises: ExportError when neither exporter can express the network; UserError for a network in its training form
    instead of the form that runs.
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
    if isinstance(network, Network) and network.label_step != (1, 1):
        data = _with_repeated_logits(data, network.label_step, size)
    if labels:
        return with_labels(data)
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    return data


def with_labels(graph: bytes) -> bytes:
    """A graph of `logits` (1, C, H, W) with arg-max appended: its output is `labels` (1, H, W) int64.

    If the last step of the graph repeats the logits, the labels are repeated instead.
    """
    import onnx
    from onnx.helper import make_node, make_tensor_value_info
    from onnx.numpy_helper import to_array

    model = onnx.load_from_string(graph)
    (logits,) = model.graph.output
    batch, _, height, width = (axis.dim_value for axis in logits.type.tensor_type.shape.dim)
    arg_max = functools.partial(make_node, "ArgMax", axis=1, keepdims=0, select_last_index=0)
    coarse = [place for place, node in enumerate(model.graph.node) if COARSE in node.output]
    if coarse:
        (spread,) = (tensor for tensor in model.graph.initializer if tensor.name == "logits_spread_Expand_0")
        _, _, rows, row_step, columns, column_step = to_array(spread).tolist()
        del model.graph.node[coarse[0] + 1 :]
        kept = [tensor for tensor in model.graph.initializer if not tensor.name.startswith("logits_")]
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
        model.graph.node.append(arg_max([COARSE], ["coarse_labels"]))
        step = (row_step, column_step)
        _repeat(model, "coarse_labels", "labels", [batch, rows, columns], step, (height, width))
    else:
        model.graph.node.append(arg_max([logits.name], ["labels"]))
    model.graph.output.remove(logits)
    model.graph.output.append(make_tensor_value_info("labels", onnx.TensorProto.INT64, [batch, height, width]))
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString()
    return data


def _with_repeated_logits(graph: bytes, step: tuple[int, int], size: tuple[int, int]) -> bytes:
    """A graph of coarse logits (1, C, h, w) that repeats them `step` times along each axis, cropped to `size`."""
    import onnx
    from onnx.helper import make_tensor_value_info

    model = onnx.load_from_string(graph)
    (logits,) = model.graph.output
    shape = [axis.dim_value for axis in logits.type.tensor_type.shape.dim]
    for node in model.graph.node:
        node.output[:] = [COARSE if name == logits.name else name for name in node.output]
    model.graph.output.remove(logits)
    model.graph.value_info.append(make_tensor_value_info(COARSE, onnx.TensorProto.FLOAT, shape))
    _repeat(model, COARSE, "logits", shape, step, size)
    model.graph.output.append(make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [*shape[:2], *size]))
    data: bytes = model.SerializeToString()
    return data


def _repeat(
    model: Any, source: str, name: str, shape: Sequence[int], step: tuple[int, int], size: tuple[int, int]
) -> None:
    """Repeat `source` (..., h, w) to the tensor `name` (..., H, W), without Resize, which does not take integers."""
    import onnx
    from onnx.helper import make_node, make_tensor

    *leading, height, width = shape

    def add(kind: str, read: str, out: str, *numbers: Sequence[int]) -> str:
        names = [f"{out}_{kind}_{index}" for index in range(len(numbers))]
        for parameter, values in zip(names, numbers, strict=True):
            model.graph.initializer.append(make_tensor(parameter, onnx.TensorProto.INT64, [len(values)], values))
        model.graph.node.append(make_node(kind, [read, *names], [out]))
        return out

    apart = add("Reshape", source, f"{name}_apart", [*leading, height, 1, width, 1])
    spread = add("Expand", apart, f"{name}_spread", [*leading, height, step[0], width, step[1]])
    whole = (height * step[0], width * step[1])
    joined = add("Reshape", spread, name if whole == size else f"{name}_joined", [*leading, *whole])
    if whole != size:
        last = len(shape)
        add("Slice", joined, name, [0, 0], size, [last - 2, last - 1])


def versions() -> dict[str, str]:
    """Versions of the libraries that determine the graph."""
    return {"torch": str(torch.__version__)}


class _Logits(nn.Module):
    """The network as it is exported: from images to logits, coarse ones if they are repeated later."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits_of = self.network.coarse_logits if isinstance(self.network, Network) else self.network
        if torch.compiler.is_exporting():  # the slower exporter refuses function modes, and knows adaptive pooling
            return logits_of(image)
        with Rewritten():
            return logits_of(image)


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
    """Suppress graphs that exporters print, and warnings about what is intended here: static shapes and tracing."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(_Muted(sys.stdout)):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class _Muted(io.StringIO):
    """Discards what the thread that creates it prints, and passes what other threads print on to `others`: a search
    exports in one thread while another reports on its trainings.
    """

    def __init__(self, others: TextIO) -> None:
        super().__init__()
        self._others = others
        self._thread = threading.get_ident()

    def write(self, text: str) -> int:
        return super().write(text) if threading.get_ident() == self._thread else self._others.write(text)

    def flush(self) -> None:
        if threading.get_ident() != self._thread:
            self._others.flush()
