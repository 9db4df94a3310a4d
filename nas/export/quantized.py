"""Post-training quantization of an ONNX graph to INT8, with ONNX Runtime's tools.

The result is a graph of float operations between pairs of QuantizeLinear and DequantizeLinear (QDQ), which ONNX
Runtime, OpenVINO and TensorRT compute in INT8 where they can. Weights are INT8 per output channel; activations have one
range per tensor, observed on calibration images.

Convolutions are quantized first. Whether it pays to quantize sums, pools, concatenations and resizes between them
depends on the network and the runtime, so that is an option. Arg-max and the last resize of logits to the input size
are never quantized: their input decides the labels.

On a CPU, activations are UINT8 with a zero point and biases INT32. For a GPU, as TensorRT reads it, quantization is
symmetric: INT8 around zero, biases in floating point, and QDQ pairs only before quantized operations, so that TensorRT
can fuse what follows (https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html).
Convolutions with fewer than `FEWEST_CHANNELS` input channels stay in floating point there, because TensorRT has no INT8
kernel for some of them and fails.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nas.export.graph import INPUT_NAME, onnx_bytes
from nas.host.processor import saturates

if TYPE_CHECKING:
    import onnx
    import torch

Image = NDArray[np.float32]  # (1, 3, H, W), as the network sees it

CONVOLUTIONS = ("Conv", "ConvTranspose")
BETWEEN = ("Add", "MaxPool", "AveragePool", "Concat", "Resize", "Relu", "Mul")
"""Operations that may be quantized together with the convolutions around them."""
FEWEST_CHANNELS = 4  # input channels of a filter: INT8 kernels of a GPU read them in groups of four


def graph_in(
    precision: str, network: torch.nn.Module, image: torch.Tensor, *, on_gpu: bool = False, elsewhere: bool = False
) -> bytes:
    """The graph from images of the size of `image` (1, 3, H, W) to labels that `network` is timed by in a precision.
    `on_gpu` and `elsewhere` are as in `weight_steps`.

    In int8 its convolutions are quantized with the ranges found on `image`: the latency does not depend on ranges, only
    the labels do. Networks to be deployed are calibrated on real images (`nas.quantization`).
    """
    height, width = image.shape[-2:]
    graph = onnx_bytes(network, (height, width), labels=True)
    if precision != "int8":
        return graph
    return Calibrated(graph, [image.contiguous().numpy()]).quantized(on_gpu=on_gpu, elsewhere=elsewhere)


class Calibrated:
    """A graph and the ranges of its activations, from which differently quantized graphs are made."""

    def __init__(self, graph: bytes, images: Iterable[Image]) -> None:
        """`graph` has the input `image`. Each of the calibration `images` is run through it once."""
        self._model = _prepared(graph)
        self._ranges = _ranges(self._model, images)

    def with_weights_of(self, graph: bytes) -> Calibrated:
        """The same ranges with a `graph` of the same network with other weights."""
        other = copy.copy(self)
        other._model = _prepared(graph)
        assert [node.output for node in other._model.graph.node] == [node.output for node in self._model.graph.node]
        return other

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions in the order of the graph."""
        return tuple(node.name for node in self._model.graph.node if node.op_type in CONVOLUTIONS)

    def quantized(
        self, *, between: bool = False, kept: Collection[str] = (), on_gpu: bool = False, elsewhere: bool = False
    ) -> bytes:
        """The graph with its convolutions in INT8; with `between`, also the operations between them.

        `kept`: names of convolutions that stay in floating point. `on_gpu` and `elsewhere` are as in `weight_steps`.
        """
        import onnx
        from onnxruntime.quantization import QDQQuantizer, QuantType

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        kinds = [*CONVOLUTIONS, *(BETWEEN if between else ())]
        symmetric = {"ActivationSymmetric": True, "QuantizeBias": False, "OpTypesToExcludeOutputQuantization": kinds}
        with _hushed():
            quantizer: Any = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=weight_steps(on_gpu=on_gpu, elsewhere=elsewhere) < 127,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QInt8 if on_gpu else QuantType.QUInt8,
                tensors_range=copy.deepcopy(self._ranges),  # the quantizer changes it
                nodes_to_quantize=[],
                nodes_to_exclude=[*kept, *_deciding(model), *(_of_few_channels(model) if on_gpu else ())],
                op_types_to_quantize=kinds,
                extra_options=symmetric if on_gpu else {},
            )
            quantizer.quantize_model()
        quantized = quantizer.model.model
        _sort(quantized.graph)
        data: bytes = quantized.SerializeToString()
        return data


def weight_steps(*, on_gpu: bool = False, elsewhere: bool = False) -> int:
    """Steps on either side of zero in the grid of a weight: 127, or 64 on processors that sum products of 8-bit numbers
    in 16 bits, which would overflow. `elsewhere`: the graph will run on another processor, which may be such a one. No
    GPU is.
    """
    return 127 if on_gpu or not (elsewhere or saturates()) else 64


def multiply_adds(graph: bytes) -> dict[str, int]:
    """Multiply-adds of each convolution in a graph with static shapes, by name."""
    inferred = _loaded(graph).graph
    shapes = {value.name: _shape(value) for value in (*inferred.value_info, *inferred.input, *inferred.output)}
    weights = {tensor.name: tuple(tensor.dims) for tensor in inferred.initializer}
    counts = {}
    for node in inferred.node:
        if node.op_type in CONVOLUTIONS:
            side = node.output[0] if node.op_type == "Conv" else node.input[0]
            counts[node.name] = int(np.prod(shapes[side][-2:])) * int(np.prod(weights[node.input[1]]))
    return counts


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _prepared(graph: bytes) -> onnx.ModelProto:
    """The graph with the shapes of all tensors and a name for every node."""
    model = _loaded(graph)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def _loaded(graph: bytes) -> onnx.ModelProto:
    """The graph with the shapes of all tensors, and with weights read directly.

    The exporter stores equal weights once and lets other nodes read an Identity of them, which would be quantized at
    run time and per tensor.
    """
    import onnx

    model = onnx.load_from_string(graph)
    kept = {tensor.name for tensor in model.graph.initializer}
    copies = {node.output[0]: node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in kept}
    for node in copies.values():
        model.graph.node.remove(node)
    for node in model.graph.node:
        node.input[:] = [copies[name].input[0] if name in copies else name for name in node.input]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)  # the graph computes sizes of Resize nodes


def _ranges(model: onnx.ModelProto, images: Iterable[Image]) -> Any:
    import onnx
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    with tempfile.TemporaryDirectory() as folder, _hushed():
        file = Path(folder) / "graph.onnx"
        onnx.save_model(model, str(file))
        augmented = str(Path(folder) / "augmented.onnx")
        # With a moving average, one unusual image does not widen a range.
        calibrator = MinMaxCalibrater(str(file), [*CONVOLUTIONS, *BETWEEN], augmented, moving_average=True)
        calibrator.augment_graph()
        calibrator.infer_session = _session(augmented)
        calibrator.collect_data(_Reader(images))
        return calibrator.compute_data()


def _session(file: str) -> Any:
    """A session that runs a graph unoptimized. In a process whose sessions share one thread pool, such as a measuring
    process, ONNX Runtime refuses sessions with threads of their own; elsewhere it refuses sessions without.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except RuntimeError as error:
        if "use_per_session_threads" not in str(error):
            raise
        options.use_per_session_threads = False
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


class _Reader:
    """Calibration images in the form that ONNX Runtime reads."""

    def __init__(self, images: Iterable[Image]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT_NAME: image}


def _deciding(model: onnx.ModelProto) -> Sequence[str]:
    """Names of the nodes after the last convolution, which decide the labels."""
    nodes = list(model.graph.node)
    last = max((index for index, node in enumerate(nodes) if node.op_type in CONVOLUTIONS), default=-1)
    return [node.name for node in nodes[last + 1 :]]


def _sort(graph: onnx.GraphProto) -> None:
    """Move every node behind those that it reads, as ONNX requires; the tools append new nodes at the end."""
    makers = {name: node for node in graph.node for name in node.output}
    waiting = list(graph.node)[::-1]
    placed: dict[str, onnx.NodeProto] = {}  # by first output
    while waiting:
        node = waiting[-1]
        read = [makers[name] for name in node.input if name in makers and makers[name].output[0] not in placed]
        waiting += read[::-1]
        if not read:
            placed[node.output[0]] = waiting.pop()
    del graph.node[:]
    graph.node.extend(placed.values())


def _of_few_channels(model: onnx.ModelProto) -> Sequence[str]:
    """Names of convolutions, on images or depthwise, with so few input channels that a GPU may have no INT8 kernel."""
    read = {tensor.name: tensor.dims[1] for tensor in model.graph.initializer if len(tensor.dims) > 1}
    return [node.name for node in model.graph.node if node.op_type == "Conv" and read[node.input[1]] < FEWEST_CHANNELS]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Suppress advice that the tools write to the root logger."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
