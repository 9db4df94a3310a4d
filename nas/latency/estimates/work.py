"""What the layers of a network ask of the hardware, in the quantities that a `LatencyTable` has prices for.

Multiply-adds alone order networks poorly (`studies/latency`): a depthwise convolution moves data, a narrow one pads
it, a channel count that does not divide leaves the fast layout. So each layer is described as a runtime executes it:

- Activations lie in *blocks* of 16 channels, padded (ONNX Runtime's NCHWc, oneDNN's nChw16c). A convolution that reads
  fewer than 16 channels reads them *plain* and writes blocks; one whose input channels do not divide by 4 is plain on
  both sides, and slow. Transposed convolutions, grid pooling and arg-max are plain. Changing the layout is work too.
- Normalisation behind a convolution is folded into its weights, a ReLU behind it and a sum with its output into its
  loop. Where something else reads the value in between, or there is no convolution before, they are passes of their
  own. ReLU6 is folded into a convolution only; behind a sum it makes both plain.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from space.channels import Widths, widths
from space.graph import Graph, Node, output_size
from space.rules import IMAGE_CHANNELS

if TYPE_CHECKING:
    from space.architecture import Architecture

BLOCK = 16
ALIGNED = 4
FAR_BYTES = (500_000, 2_000_000)  # what exceeds them has left a core's own caches


@dataclass(frozen=True, kw_only=True)
class LayerWork:
    """The work of one layer: amounts by quantity, such as "conv 3x3 multiply_adds"; the last word is its unit."""

    index: int
    """Of the layer's node in its graph."""
    amounts: Mapping[str, float]


def unit(quantity: str) -> str:
    """What a quantity counts: "multiply_adds", "count", "read", ..."""
    return quantity.rpartition(" ")[2]


def total(layers: tuple[LayerWork, ...]) -> dict[str, float]:
    """The work of all layers together."""
    sums: dict[str, float] = {}
    for layer in layers:
        for quantity, amount in layer.amounts.items():
            sums[quantity] = sums.get(quantity, 0.0) + amount
    return sums


def work_of(architecture: Architecture, size: tuple[int, int], num_classes: int) -> dict[str, float]:
    """All the work of an architecture at input `size` (height, width)."""
    graph = architecture.graph(num_classes)
    return total(layer_work(graph, widths(graph, architecture.channels), size))


def layer_work(graph: Graph, sizes: Widths, size: tuple[int, int]) -> tuple[LayerWork, ...]:
    """The work of every layer of a graph whose nodes have the given widths, at input `size` (height, width)."""
    walk = _Walk(graph=graph, given=sizes.given, size=size)
    walk.run()
    return tuple(LayerWork(index=index, amounts=amounts) for index, amounts in enumerate(walk.amounts) if amounts)


@dataclass(kw_only=True)
class _Walk:
    """One walk over the layers in order of computation; knows how every value so far lies in memory."""

    graph: Graph
    given: tuple[int, ...]
    size: tuple[int, int]
    blocked: list[bool] = field(default_factory=list)
    """Of every value so far, whether it lies in blocks."""
    folded_sums: set[int] = field(default_factory=set)
    reordered: set[tuple[int, bool]] = field(default_factory=set)
    """(value, into blocks): changes of the layout that an earlier reader has asked for."""
    amounts: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> None:
        nodes = self.graph.nodes
        self.pixels, self.readers = _surroundings(self.graph, self.size)
        steps = {
            "conv": self.conv, "deconv": self.deconv, "norm": self.norm, "act": self.act, "add": self.add,
            "cat": self.cat, "resize": self.resize, "max_pool": self.pool, "average_pool": self.pool,
            "grid_pool": self.grid_pool, "dropout": self.nothing, "image": self.nothing,
        }  # fmt: skip
        for node in nodes:
            self.amounts.append({})
            self.blocked.append(False)
            self.blocked[-1] = steps[node.kind](node)
        self.want(self.graph.outputs[0].index, blocked=False)
        self.note("network count", 1)

    def note(self, quantity: str, amount: float) -> None:
        here = self.amounts[-1]
        here[quantity] = here.get(quantity, 0.0) + amount

    def want(self, index: int, *, blocked: bool) -> None:
        """The present layer reads a value in that layout."""
        if self.blocked[index] != blocked and (index, blocked) not in self.reordered:
            self.reordered.add((index, blocked))
            self.note(f"{'into' if blocked else 'out of'} blocks moved", self.elements(index, padded=True))
            self.note("move count", 1)

    def elements(self, index: int, *, padded: bool) -> int:
        channels = self.given[index]
        return self.pixels[index] * (_padded(channels) if padded else channels)

    def far(self, *indices: int) -> None:
        """Bytes of the values at `indices` that do not stay in a core's own caches."""
        for index in indices:
            size = 4 * self.elements(index, padded=self.blocked[index])
            for limit in FAR_BYTES:
                if size > limit:
                    self.note(f"beyond {limit} far_bytes", size - limit)

    def conv(self, node: Node) -> bool:
        (source,) = node.inputs
        read, out = self.given[source], self.given[node.index]
        pixels, taps = self.pixels[node.index], math.prod(node.kernel)
        strided = " strided" if max(node.step) > 1 else ""
        if node.depthwise:
            blocked = out % ALIGNED == 0
            self.want(source, blocked=blocked)
            dilated = " dilated" if blocked and max(node.dilation) > 1 else ""
            name = f"{'' if blocked else 'plain '}depthwise{dilated}{strided}"
            self.note(f"{name} count", 1)
            self.note(f"{name} multiply_adds", pixels * taps * _padded(out))
            if not blocked:
                self.note(f"{name} channels", out)  # one matrix product after the other
        else:
            narrow, blocked = read < BLOCK, read < BLOCK or read % ALIGNED == 0
            self.want(source, blocked=blocked and not narrow)
            layout = "image " if read == IMAGE_CHANNELS else "narrow " if narrow else "" if blocked else "plain "
            name = f"{layout}conv {_shape(node)}{strided}"
            reads = _padded(read) if blocked and not narrow else read
            writes = _padded(out) if blocked else out
            multiply_adds = pixels * taps * reads * writes
            self.note(f"{name} count", 1)
            self.note(f"{name} multiply_adds", multiply_adds)
            self.note(f"{name} written", pixels * writes)
            self.note(f"{name} read", self.pixels[source] * reads)
            self.note(f"{layout}conv weights", writes * reads * taps)
            if not blocked and taps > 1:
                self.note("plain conv gathered", pixels * taps * reads)  # into columns for a matrix product
            if max(node.dilation) > 1:
                self.note(f"{name} dilated", multiply_adds)
        self.blocked[node.index] = blocked
        self.far(source, node.index)
        return blocked

    def deconv(self, node: Node) -> bool:
        (source,) = node.inputs
        read, out = self.given[source], self.given[node.index]
        self.want(source, blocked=False)
        name = f"deconv {node.kernel[0]}x{node.kernel[1]}"
        self.note(f"{name} count", 1)
        self.note(f"{name} multiply_adds", self.pixels[source] * math.prod(node.kernel) * read * out)
        self.note(f"{name} written", self.pixels[node.index] * out)
        self.note(f"{name} read", self.pixels[source] * read)
        self.far(source, node.index)
        return False

    def norm(self, node: Node) -> bool:
        (source,) = node.inputs
        if self.producer(source).kind not in ("conv", "deconv") or len(self.readers[source]) > 1:
            self.a_pass("norm", node)
        return self.blocked[source]

    def act(self, node: Node) -> bool:
        (source,) = node.inputs
        behind_conv = self.producer(source).kind == "conv"
        folds = behind_conv or source in self.folded_sums
        blocked = self.blocked[source] and (node.mode != "relu6" or behind_conv)
        if not blocked:
            self.want(source, blocked=False)
        if node.mode == "prelu" or not folds or len(self.readers[source]) > 1:
            self.a_pass(node.mode if blocked else f"plain {node.mode}", node)
        return blocked

    def a_pass(self, name: str, node: Node) -> None:
        self.note(f"{name} count", 1)
        self.note(f"{name} elements", self.elements(node.index, padded=True))

    def add(self, node: Node) -> bool:
        before_relu6 = any(reader.mode == "relu6" for reader in self.readers[node.index])
        blocked = all(self.blocked[index] for index in node.inputs) and not before_relu6
        if not blocked:
            for index in node.inputs:
                self.want(index, blocked=False)
        terms = len(node.inputs) - 1
        folds = [self.producer(index).kind == "conv" and len(self.readers[index]) == 1 for index in node.inputs]
        elements = self.elements(node.index, padded=True) * terms
        if blocked and any(folds):
            self.folded_sums.add(node.index)
            self.note("folded add elements", elements)
        else:
            self.note("add count", terms)
            self.note("add elements", elements)
        self.far(*node.inputs, node.index)
        return blocked

    def cat(self, node: Node) -> bool:
        blocked = all(self.blocked[index] and self.given[index] % BLOCK == 0 for index in node.inputs)
        if not blocked:
            for index in node.inputs:
                self.want(index, blocked=False)
        self.note("cat count", 1)
        self.note("cat elements", self.elements(node.index, padded=False))
        self.far(*node.inputs, node.index)
        return blocked

    def resize(self, node: Node) -> bool:
        (source,) = node.inputs
        before, after = output_size(self.graph.nodes[source], self.size), output_size(node, self.size)
        whole = all(new % old == 0 for old, new in zip(before, after, strict=True))
        blocked = self.blocked[source] and whole and self.given[source] % ALIGNED == 0
        if not blocked:
            self.want(source, blocked=False)
        way = "up" if self.pixels[node.index] >= self.pixels[source] else "down"
        corners = " aligned" if self.graph.align_corners and node.mode == "bilinear" else ""
        layout = "" if blocked else "plain "
        self.note("resize count", 1)
        self.note(
            f"{layout}{node.mode}{corners} {way}{' by a whole factor' if whole else ''} resized",
            self.elements(node.index, padded=False),
        )
        self.far(source, node.index)
        return blocked

    def pool(self, node: Node) -> bool:
        (source,) = node.inputs
        blocked = self.given[source] % ALIGNED == 0
        self.want(source, blocked=blocked)
        self.note(f"{node.kind} count", 1)
        self.note(f"{node.kind} written", self.elements(node.index, padded=True))
        self.note(f"{node.kind} read", self.elements(source, padded=True))
        self.far(source, node.index)
        return blocked

    def grid_pool(self, node: Node) -> bool:
        (source,) = node.inputs
        self.want(source, blocked=False)
        self.note("grid_pool count", 1)
        self.note("grid_pool read", self.elements(source, padded=False))
        return False

    def nothing(self, node: Node) -> bool:
        return bool(node.inputs) and self.blocked[node.inputs[0]]

    def producer(self, index: int) -> Node:
        """The node whose value this is, folded normalisation left out."""
        node = self.graph.nodes[index]
        while node.kind in ("norm", "dropout"):
            node = self.graph.nodes[node.inputs[0]]
        return node


@functools.lru_cache(maxsize=8)  # a graph is asked for at many widths in a row
def _surroundings(graph: Graph, size: tuple[int, int]) -> tuple[list[int], list[list[Node]]]:
    """Pixels of every node's output, and the nodes that read it."""
    readers: list[list[Node]] = [[] for _ in graph.nodes]
    for node in graph.nodes:
        for index in node.inputs:
            readers[index].append(node)
    return [math.prod(output_size(node, size)) for node in graph.nodes], readers


def _padded(channels: int) -> int:
    return -(-channels // BLOCK) * BLOCK


def _shape(node: Node) -> str:
    height, width = node.kernel
    return "1d" if height != width else f"{height}x{width}"
