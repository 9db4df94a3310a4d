"""What the work of a layer depends on, apart from channels and layouts: the same for a network at all widths."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from space.graph import Graph, Node
from space.sizes import output_size

REMEMBERED = 2**15  # layers: successive networks in pruning or width search differ in a few layers only


class Place(NamedTuple):
    """Everything that a layer's work depends on, except channels and layouts."""

    kind: str
    mode: str
    kernel: tuple[int, int]
    strided: bool
    dilated: bool
    group: int
    """Input channels per output channel of a grouped convolution; 0 if each output reads all channels."""
    pixels: int
    """Pixels of the output."""
    inside: int
    """Taps of a convolution outside the padding, summed over all output pixels."""
    first_read: tuple[int, ...]
    """For each input, the position among the inputs where the same value occurs first."""
    read_pixels: tuple[int, ...]
    """Pixels of each input."""
    read_alone: tuple[bool, ...]
    """Whether this layer is the only reader of each input."""
    producers: tuple[str, ...]
    """Kind of the layer that computes each input, ignoring folded batch norms."""
    before_relu6: bool
    """Whether a ReLU6 reads the output."""
    whole_factor: bool
    """Whether height and width of a resized output are multiples of those of its input."""
    align_corners: bool


@dataclass(frozen=True, eq=False)
class SharedPlace:
    """A place as an object that equal layers share, so that comparing two of them compares identities."""

    place: Place


@dataclass(frozen=True)
class _Alike:
    """A graph that equals any other graph with the same layers, whatever their widths."""

    shapes: tuple[tuple[object, ...], ...]
    align_corners: bool
    graph: Graph = field(compare=False)


@functools.lru_cache(maxsize=32)  # pruning asks for the same graph with many different channels removed
def places_in(graph: Graph, size: tuple[int, int]) -> tuple[SharedPlace, ...]:
    """The place of every layer of a graph at input `size` (height, width)."""
    shapes = tuple([node.shape for node in graph.nodes])
    return _places_of(_Alike(shapes, graph.align_corners, graph), size)


@functools.lru_cache(maxsize=32)  # a width search asks for the same architecture at many widths
def _places_of(alike: _Alike, size: tuple[int, int]) -> tuple[SharedPlace, ...]:
    graph = alike.graph
    nodes = graph.nodes
    read_alone, before_relu6 = [False] * len(nodes), [False] * len(nodes)
    producers: list[str] = []
    seen: set[int] = set()
    for node in nodes:
        for index in node.inputs:
            read_alone[index] = index not in seen
            seen.add(index)
            before_relu6[index] |= node.mode == "relu6"
        producers.append(producers[node.inputs[0]] if node.kind in ("norm", "dropout") else node.kind)
    sizes = [output_size(node, size) for node in nodes]
    pixels = [height * width for height, width in sizes]

    def whole(node: Node) -> bool:
        return all(new % old == 0 for old, new in zip(sizes[node.inputs[0]], sizes[node.index], strict=True))

    return tuple(
        _shared(
            Place(
                kind=node.kind,
                mode=node.mode,
                kernel=node.kernel,
                strided=max(node.stride) > 1,
                dilated=max(node.dilation) > 1,
                group=node.group_width,
                pixels=pixels[node.index],
                inside=_inside(node, sizes[node.inputs[0]], sizes[node.index]) if node.kind == "conv" else 0,
                first_read=tuple(map(node.inputs.index, node.inputs)),
                read_pixels=tuple(map(pixels.__getitem__, node.inputs)),
                read_alone=tuple(map(read_alone.__getitem__, node.inputs)),
                producers=tuple(map(producers.__getitem__, node.inputs)),
                before_relu6=before_relu6[node.index],
                whole_factor=node.kind == "resize" and whole(node),
                align_corners=graph.align_corners,
            )
        )
        for node in nodes
    )


def _inside(node: Node, read: tuple[int, int], given: tuple[int, int]) -> int:
    """Number of taps of a convolution, over all output pixels, that read pixels instead of padding."""
    axes = zip(read, given, node.kernel, node.stride, node.dilation, strict=True)
    return math.prod(_inside_along(*axis) for axis in axes)


@functools.lru_cache(maxsize=REMEMBERED)
def _inside_along(read: int, given: int, kernel: int, step: int, dilation: int) -> int:
    """The same along one axis."""
    found = 0
    for tap in range(kernel):
        offset = dilation * tap - dilation * (kernel - 1) // 2
        first, last = max(0, -(offset // step)), min(given - 1, (read - 1 - offset) // step)
        found += max(0, last - first + 1)
    return found


@functools.lru_cache(maxsize=REMEMBERED)
def _shared(place: Place) -> SharedPlace:
    return SharedPlace(place)
