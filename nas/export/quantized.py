"""Post-training quantization of an ONNX graph to INT8, by ONNX Runtime's tools.

What comes out is a graph of float operations between pairs of QuantizeLinear and DequantizeLinear (QDQ), which ONNX
Runtime, OpenVINO and TensorRT compute in INT8 where they can. Weights are INT8 per channel, activations have one range
per tensor, seen on calibration images.

Convolutions are quantized first. Whether sums, pools, concatenations and resizes between them gain anything differs by
network and runtime, so that is asked for; arg-max and the last resize of logits to the input size always stay as they
are: their input decides the labels.

On a CPU activations are UINT8 with a zero point and biases INT32. What TensorRT reads for a GPU is symmetric: INT8
around zero, biases in floating point, and pairs only before what is quantized, so that it can fuse what follows
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html). Convolutions of
fewer than `FEWEST_CHANNELS` channels stay in floating point there: for some of them it has no INT8 kernel, and fails.
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
"""What may be quantized together with the convolutions around it."""
FEWEST_CHANNELS = 4  # that a filter reads: INT8 kernels of a GPU take them by fours


def graph_in(
    precision: str, network: torch.nn.Module, image: torch.Tensor, *, on_gpu: bool = False, elsewhere: bool = False
) -> bytes:
    """The graph of labels to time `network` by in a precision, for images of the size of `image` (1, 3, H, W).
    `on_gpu` and `elsewhere` are as in `weight_steps`.

    In int8 its convolutions are quantized with the ranges that `image` gives: a network's time does not depend on them,
    its labels do. What is deployed is calibrated on real images (`nas.quantization`).
    """
    height, width = image.shape[-2:]
    graph = onnx_bytes(network, (height, width), labels=True)
    if precision != "int8":
        return graph
    return Calibrated(graph, [image.contiguous().numpy()]).quantized(on_gpu=on_gpu, elsewhere=elsewhere)


class Calibrated:
    """A graph and the ranges of its activations, from which it is quantized in as many ways as wanted."""

    def __init__(self, graph: bytes, images: Iterable[Image]) -> None:
        """`graph` has the input `image`; each of the calibration `images` is run through it once."""
        self._model = _prepared(graph)
        self._ranges = _ranges(self._model, images)

    def with_weights_of(self, graph: bytes) -> Calibrated:
        """The same ranges for a `graph` of the same network with other weights."""
        other = copy.copy(self)
        other._model = _prepared(graph)
        assert [node.output for node in other._model.graph.node] == [node.output for node in self._model.graph.node]
        return other

    @property
    def convolutions(self) -> tuple[str, ...]:
        """Names of the convolutions, in the order of the graph."""
        return tuple(node.name for node in self._model.graph.node if node.op_type in CONVOLUTIONS)

    def quantized(
        self, *, between: bool = False, kept: Collection[str] = (), on_gpu: bool = False, elsewhere: bool = False
    ) -> bytes:
        """The graph with its convolutions in INT8, and what lies `between` them too where that is wanted.

        `kept` are names of convolutions that stay in floating point. `on_gpu` and `elsewhere` are as in `weight_steps`.
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
                tensors_range=copy.deepcopy(self._ranges),  # it is changed where activations are quantized
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
    """How many steps the grid of a weight has on either side of zero: 127, or 64 where this processor adds products of
    8-bit numbers in 16 bits, which would overflow, or where a graph runs `elsewhere`, on one that may. No GPU does.
    """
    return 127 if on_gpu or not (elsewhere or saturates()) else 64


def multiply_adds(graph: bytes) -> dict[str, int]:
    """Multiply-adds of each convolution of a graph with static shapes, by its name."""
    inferred = _loaded(graph).graph
    shapes = {each.name: _shape(each) for each in (*inferred.value_info, *inferred.input, *inferred.output)}
    weights = {each.name: tuple(each.dims) for each in inferred.initializer}
    counts = {}
    for node in inferred.node:
        if node.op_type in CONVOLUTIONS:
            side = node.output[0] if node.op_type == "Conv" else node.input[0]
            counts[node.name] = int(np.prod(shapes[side][-2:])) * int(np.prod(weights[node.input[1]]))
    return counts


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def _prepared(graph: bytes) -> onnx.ModelProto:
    """The graph with shapes of all tensors, and a name for every node."""
    model = _loaded(graph)
    for index, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return model


def _loaded(graph: bytes) -> onnx.ModelProto:
    """The graph with shapes of all tensors, in which weights are read where they are.

    The exporter keeps equal ones once and has the others read a copy of them, which would be quantized while it runs,
    and per tensor.
    """
    import onnx

    model = onnx.load_from_string(graph)
    kept = {each.name for each in model.graph.initializer}
    copies = {node.output[0]: node for node in model.graph.node if node.op_type == "Identity" and node.input[0] in kept}
    for node in copies.values():
        model.graph.node.remove(node)
    for node in model.graph.node:
        node.input[:] = [copies[name].input[0] if name in copies else name for name in node.input]
    return onnx.shape_inference.infer_shapes(model, data_prop=True)  # sizes of a Resize are computed in the graph


def _ranges(model: onnx.ModelProto, images: Iterable[Image]) -> Any:
    import onnx
    from onnxruntime.quantization.calibrate import MinMaxCalibrater

    with tempfile.TemporaryDirectory() as folder, _hushed():
        file = Path(folder) / "graph.onnx"
        onnx.save_model(model, str(file))
        augmented = str(Path(folder) / "augmented.onnx")
        # One odd image does not widen a range for all.
        calibrator = MinMaxCalibrater(str(file), [*CONVOLUTIONS, *BETWEEN], augmented, moving_average=True)
        calibrator.augment_graph()
        calibrator.infer_session = _session(augmented)
        calibrator.collect_data(_Reader(images))
        return calibrator.compute_data()


def _session(file: str) -> Any:
    """What runs a graph as it is written. In a process whose sessions share their threads, as those that time do, ONNX
    Runtime makes no session with threads of its own, and elsewhere none without.
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
    """Calibration images as ONNX Runtime asks for them."""

    def __init__(self, images: Iterable[Image]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Image] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT_NAME: image}


def _deciding(model: onnx.ModelProto) -> Sequence[str]:
    """Nodes behind the last convolution: the labels are decided there, at a handful of classes."""
    nodes = list(model.graph.node)
    last = max((index for index, node in enumerate(nodes) if node.op_type in CONVOLUTIONS), default=-1)
    return [node.name for node in nodes[last + 1 :]]


def _sort(graph: onnx.GraphProto) -> None:
    """Every node behind those that it reads, as ONNX asks for, which the tools leave at the end; else as they were."""
    makers = {name: node for node in graph.node for name in node.output}
    waiting = list(graph.node)[::-1]
    placed: dict[str, onnx.NodeProto] = {}  # by the first output
    while waiting:
        node = waiting[-1]
        read = [makers[name] for name in node.input if name in makers and makers[name].output[0] not in placed]
        waiting += read[::-1]
        if not read:
            placed[node.output[0]] = waiting.pop()
    del graph.node[:]
    graph.node.extend(placed.values())


def _of_few_channels(model: onnx.ModelProto) -> Sequence[str]:
    """Convolutions whose filters read so few channels that a GPU may have no INT8 kernel: of images, and depthwise."""
    read = {each.name: each.dims[1] for each in model.graph.initializer if len(each.dims) > 1}
    return [node.name for node in model.graph.node if node.op_type == "Conv" and read[node.input[1]] < FEWEST_CHANNELS]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """The tools advise steps by the logger of everybody."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
