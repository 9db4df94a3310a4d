"""Where a quantized graph rounds the weights and activations of a network, and to which grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.export.quantized import CONVOLUTIONS
from space.graph import Node
from space.network import Network

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

_ONE_INPUT = {
    "act": ("Relu", "Clip"), "norm": ("BatchNormalization",), "max_pool": ("MaxPool",),
    "average_pool": ("AveragePool",), "resize": ("Resize",), "gate": ("Mul",), "shuffle": ("DepthToSpace",),
}  # fmt: skip
"""Kinds of nodes that become one operation, whose first input is that of the node."""
_EVERY_INPUT = {"add": "Add", "cat": "Concat"}
"""Kinds of nodes whose operation has the same inputs; a sum of three is exported as a sum of two and the third."""


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The grid that a tensor of activations is rounded to: (n - zero_point) * scale, n in 0..255. Signed integers are
    shifted so that -128 is n = 0.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Values and weights that an INT8 network rounds."""

    values: Mapping[int, Steps]
    """Grids of values that are rounded before they are read, by index of the node in the architecture's graph."""
    weights: Mapping[str, int]
    """Steps on either side of zero of a convolution's weight grid, by name of the convolution. The largest weight of
    each output channel is this many steps."""


def grid_of(network: Network, graph: bytes) -> Grid:
    """The grid of a network's quantized `graph` (from `Calibrated.quantized`).

    Weights are found for every convolution. Values are found where operations of the graph correspond to nodes of the
    network: all inputs and outputs of convolutions, and sums, pools, concatenations and resizes between them unless
    they were exported as other operations.
    """
    import onnx

    found = _Graph(onnx.load_from_string(graph).graph)
    nodes = network.architecture.graph(network.num_classes).nodes
    last_of = _last_parts(nodes)
    assert len(last_of) == len(found.convolutions), (len(last_of), len(found.convolutions))
    values: dict[int, Steps] = {}
    weights: dict[str, int] = {}
    # In the graph, a convolution takes the place of the last batch norm that was folded into it.
    for convolution, index in zip(found.convolutions, sorted(last_of, key=last_of.__getitem__), strict=True):
        layer, (output,) = nodes[index], convolution.output
        assert found.weight_shape(convolution) == tuple(network.layer(layer.name).get_parameter("weight").shape)
        if largest := found.largest_weight(convolution):
            weights[layer.name] = largest
        if output in found.steps:
            values[last_of[index]] = found.steps[output]
        values |= found.values_before(convolution.input[0], layer.inputs[0], nodes)
    return Grid(values=values, weights=weights)


def _last_parts(nodes: Sequence[Node]) -> dict[int, int]:
    """Maps the index of each convolution to that of the node whose value the exported convolution computes: its own, or
    that of the last batch norm folded into it. Norms that directly follow a convolution, each as the only reader of the
    value before it, are folded; not into a transposed convolution.
    """
    readers: dict[int, list[Node]] = {node.index: [] for node in nodes}
    for node in reversed(nodes):
        for index in node.inputs:
            readers[index] += readers[node.index] if node.kind == "dropout" else [node]

    def last(index: int) -> int:
        alone = readers[index][0] if len(readers[index]) == 1 else None
        return last(alone.index) if alone is not None and alone.kind == "norm" else index

    own = {node.index: node.index for node in nodes if node.kind == "deconv"}
    return own | {node.index: last(node.index) for node in nodes if node.kind == "conv"}


class _Graph:
    """Look-ups in a quantized graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        from onnx.numpy_helper import to_array

        self._numbers: dict[str, NDArray[Any]] = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        self._makers = {name: node for node in graph.node for name in node.output}
        self.convolutions = [node for node in graph.node if node.op_type in CONVOLUTIONS]
        self.steps = {
            node.input[0]: self._steps(node)
            for node in graph.node
            if node.op_type == "QuantizeLinear" and node.input[0] not in self._numbers
        }
        """Grid of each tensor that is rounded, by its name."""

    def largest_weight(self, convolution: onnx.NodeProto) -> int:
        """The largest integer among the weights of a convolution; 0 if they are not rounded, or all zero."""
        whole = self._weights(convolution)
        if convolution.input[1] in self._numbers:
            return 0
        assert whole.dtype == np.int8, f"expected INT8, got {whole.dtype}"
        return int(np.abs(whole.astype(np.int16)).max())

    def weight_shape(self, convolution: onnx.NodeProto) -> tuple[int, ...]:
        """Shape of a convolution's weights, as in PyTorch."""
        return self._weights(convolution).shape

    def _weights(self, convolution: onnx.NodeProto) -> NDArray[Any]:
        """Weights of a convolution, as integers if they are rounded."""
        name = convolution.input[1]
        return self._numbers[name if name in self._numbers else self._makers[name].input[0]]

    def values_before(self, tensor: str, index: int, nodes: Sequence[Node]) -> dict[int, Steps]:
        """Grids of the values rounded on the way to `tensor`, which is the value of the node number `index`."""
        values: dict[int, Steps] = {}
        left = [(tensor, index)]
        while left:
            read, at = left.pop()
            made = self._rounded(read)
            if made in self.steps:
                values[at] = self.steps[made]
            left += self._read_by(made, nodes[at])
        return values

    def _read_by(self, made: str, node: Node) -> Iterator[tuple[str, int]]:
        """Tensors that are read to make the tensor `made`, the value of `node`, and the nodes that compute them."""
        if node.kind == "dropout":
            yield made, node.inputs[0]
            return
        maker = self._makers.get(made)
        if maker is None:
            return
        if maker.op_type in _ONE_INPUT.get(node.kind, ()):
            yield maker.input[0], node.inputs[0]
        elif maker.op_type == _EVERY_INPUT.get(node.kind):
            read = list(maker.input)
            while len(read) < len(node.inputs):
                maker = self._makers[self._rounded(read[0])]
                read[:1] = maker.input
            yield from zip(read, node.inputs, strict=True)

    def _rounded(self, read: str) -> str:
        """The tensor before rounding."""
        maker = self._makers.get(read)
        if maker is None or maker.op_type != "DequantizeLinear":
            return read
        name: str = self._makers[maker.input[0]].input[0]
        return name

    def _steps(self, node: onnx.NodeProto) -> Steps:
        scale, zero_point = (self._numbers[name] for name in node.input[1:3])
        assert zero_point.dtype in (np.uint8, np.int8), f"expected 8 bits, got {zero_point.dtype}"
        first = int(np.iinfo(zero_point.dtype).min)
        return Steps(scale=float(scale), zero_point=int(zero_point) - first)
