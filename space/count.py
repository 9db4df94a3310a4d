"""Parameters, multiply-adds, layers, memory and channel groups of an architecture, counted without building it.

A multiply-add is one multiplication and one addition of a convolution; bias, normalisation, activation, pooling and
resizing are not counted. This is what papers call GMAC, and some of them "GFLOPs".
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

from space.architecture import Architecture
from space.channels import Widths, channel_map, parametric, widths
from space.graph import Graph, Node
from space.sizes import output_size

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer at a given input size: its shape, parameters and multiply-adds. `height` and `width`: the output's."""

    name: str
    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    height: int
    width: int
    parameters: int
    multiply_adds: int


def parameters(
    architecture: Architecture, num_classes: int, *, auxiliary: bool = False, training_form: bool = False
) -> int:
    """Number of parameters. `auxiliary`: include the auxiliary heads, which exist in training only. `training_form`:
    include the training paths of re-parameterised convolutions.
    """
    graph = architecture.graph(num_classes, auxiliary=auxiliary)
    sizes = widths(graph, architecture.channels)
    found = sum(_parameters(node, _read(node, sizes.given), sizes.out(node)) for node in parametric(graph))
    return found + (_paths(architecture, graph, sizes).parameters if training_form else 0)


def multiply_adds(
    architecture: Architecture, size: tuple[int, int], num_classes: int, *, training_form: bool = False
) -> int:
    """Multiply-adds for one image of `size` (height, width), convolutions only. `training_form`: include the training
    paths of re-parameterised convolutions.
    """
    graph = architecture.graph(num_classes)
    sizes = widths(graph, architecture.channels)
    found = graph_multiply_adds(graph, sizes, size)
    return found + (_paths(architecture, graph, sizes).multiply_adds(graph, size) if training_form else 0)


def depth(architecture: Architecture, num_classes: int) -> int:
    """Number of convolutions larger than 1x1 on the longest path from the image to the logits."""
    before: list[int] = []
    for node in architecture.graph(num_classes).nodes:
        sees = node.kind in ("conv", "deconv") and max(node.kernel) > 1
        before.append(max((before[place] for place in node.inputs), default=0) + sees)
    return max(before)


def graph_multiply_adds(graph: Graph, sizes: Widths, size: tuple[int, int]) -> int:
    """Multiply-adds of a graph whose nodes have the given widths, for one image of `size` (height, width)."""
    given = sizes.given
    return sum(
        each * given[node.index] * (node.group_width or given[node.inputs[0]])
        for node, each in _convolutions(graph, size)
    )


@functools.lru_cache(maxsize=32)  # the same graph is counted at many widths in a row
def _convolutions(graph: Graph, size: tuple[int, int]) -> tuple[tuple[Node, int], ...]:
    """The convolutions, each with its multiply-adds per pair of input and output channel."""
    return tuple(
        (node, _multiply_adds_of_a_pair(node, output_size(node, size), size))
        for node in graph.nodes
        if node.kind in ("conv", "deconv")
    )


def layers(architecture: Architecture, size: tuple[int, int], num_classes: int) -> tuple[Layer, ...]:
    """Every layer, in the order of computation, at input `size` (height, width).

    Shared weights are counted as parameters of the layer that uses them first.
    """
    graph = architecture.graph(num_classes)
    given = widths(graph, architecture.channels).given
    owners = {node.index for node in parametric(graph)}
    rows = []
    for node in graph.nodes:
        if node.kind == "image":
            continue
        read, out = _read(node, given), given[node.index]
        height, width = output_size(node, size)
        rows.append(
            Layer(
                name=node.name or node.kind,
                kind=node.kind,
                in_channels=read,
                out_channels=out,
                kernel=node.kernel,
                stride=node.stride,
                dilation=node.dilation,
                groups=out // node.group_width if node.group_width else 1,
                height=height,
                width=width,
                parameters=_parameters(node, read, out) if node.index in owners else 0,
                multiply_adds=_multiply_adds(node, read, out, (height, width), size),
            )
        )
    return tuple(rows)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Numbers that a network holds at a given input size; the memory of libraries themselves is not included."""

    parameters: int
    """Parameters of the network as it is deployed."""
    trained_parameters: int
    """Parameters of the network in its training form."""
    outputs: int
    """Values in the outputs of all layers for one image, which a training step keeps for the backward pass."""
    alive: int
    """Peak number of these values held at once for one image if each output is dropped after its last use."""

    def inference_bytes(self, batch: int = 1) -> int:
        """Bytes of inference on a batch of images, in float32."""
        return FLOAT_BYTES * (self.parameters + batch * self.alive)

    def training_bytes(self, batch: int) -> int:
        """Bytes of a training step on a batch of images, in float32: weights, gradients and two moments per parameter,
        the outputs of all layers, and the gradients that are alive at once.
        """
        return FLOAT_BYTES * (4 * self.trained_parameters + batch * (self.outputs + self.alive))


def memory(architecture: Architecture, size: tuple[int, int], num_classes: int, *, encoder: bool = False) -> Memory:
    """Memory of the network, or with `encoder` of its encoder alone, for images of `size` (height, width)."""
    graph = architecture.graph(num_classes)
    sizes = widths(graph, architecture.channels)
    if encoder:
        graph = _encoder_of(graph)
    elements = [sizes.given[node.index] * math.prod(output_size(node, size)) for node in graph.nodes]
    last = {index: node.index for node in graph.nodes for index in node.inputs}
    now = most = 0
    for node in graph.nodes:
        now += elements[node.index]
        most = max(most, now)
        now -= sum(elements[index] for index in set(node.inputs) if last[index] == node.index)
    parameters = sum(_parameters(node, _read(node, sizes.given), sizes.out(node)) for node in parametric(graph))
    paths = _paths(architecture, graph, sizes)
    outputs = sum(count * elements[index] for index, count in paths.outputs.items())
    return Memory(
        parameters=parameters,
        trained_parameters=parameters + paths.parameters,
        outputs=sum(elements) + outputs,
        alive=most,
    )


def _encoder_of(graph: Graph) -> Graph:
    """The graph of the stem and the stages alone, on the first level of an image pyramid."""
    alone = copy.copy(graph)
    alone.nodes = graph.nodes[: graph.encoder_nodes]
    return alone


@dataclass(frozen=True, kw_only=True)
class _Paths:
    """Additions to re-parameterised convolutions in their training form."""

    parameters: int
    outputs: Mapping[int, int]
    """By node index, the number of additional tensors of the size of the node's output."""
    weights: Mapping[int, int]
    """By node index, the number of additional convolution weights applied per output pixel."""

    def multiply_adds(self, graph: Graph, size: tuple[int, int]) -> int:
        """Additional multiply-adds for one image of `size` (height, width)."""
        return sum(count * math.prod(output_size(graph.nodes[index], size)) for index, count in self.weights.items())


def _paths(architecture: Architecture, graph: Graph, sizes: Widths) -> _Paths:
    parameters, outputs, weights = 0, {}, {}
    for node in graph.nodes:
        if not node.paths or architecture.channels:
            continue
        read, out = _read(node, sizes.given), sizes.out(node)
        parameters += out  # a normalisation has two numbers per channel, the bias that it replaces has one
        if node.paths == "pair":
            weights[node.index] = math.prod(node.kernel) * read * out
            parameters += weights[node.index] + 2 * out
            outputs[node.index] = 4
            continue
        identity = read == out and node.stride == (1, 1)
        weights[node.index] = read * out + out * out
        parameters += weights[node.index] + 6 * out + (2 * out if identity else 0)
        outputs[node.index] = 8 if identity else 6
    return _Paths(parameters=parameters, outputs=outputs, weights=weights)


def groups(architecture: Architecture) -> dict[str, int]:
    """Number of channels in every group that is cut together, by name; of a pruned network, of those that are left."""
    mapping = channel_map(architecture.graph(1))
    return {
        name: architecture.channels.get(name, count) for name, count in zip(mapping.names, mapping.counts, strict=True)
    }


def granules(architecture: Architecture) -> dict[str, int]:
    """Number of channels of every group that are cut at a time, by name: more than 1 for grouped convolutions."""
    mapping = channel_map(architecture.graph(1))
    return dict(zip(mapping.names, mapping.granules, strict=True))


def _read(node: Node, given: tuple[int, ...]) -> int:
    return sum(given[index] for index in node.inputs) if node.kind == "cat" else given[node.inputs[0]]


def _parameters(node: Node, read: int, out: int) -> int:
    if node.kind == "norm":
        return 2 * out
    if node.kind == "act":
        return out
    return math.prod(node.kernel) * (node.group_width or read) * out + (out if node.bias else 0)


def _multiply_adds(node: Node, read: int, out: int, output: tuple[int, int], size: tuple[int, int]) -> int:
    if node.kind not in ("conv", "deconv"):
        return 0
    return _multiply_adds_of_a_pair(node, output, size) * (node.group_width or read) * out


def _multiply_adds_of_a_pair(node: Node, output: tuple[int, ...], size: tuple[int, int]) -> int:
    """Multiply-adds per pair of input and output channel."""
    if node.kind == "deconv":
        output = tuple(math.ceil(length / (2 * s)) for length, s in zip(size, node.output_stride, strict=True))
    return math.prod(output) * math.prod(node.kernel)
