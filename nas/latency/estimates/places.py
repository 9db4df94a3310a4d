"""What a layer's work depends on beside channels and layouts: the same for a network at all widths."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import NamedTuple

from space.graph import Graph, Node
from space.sizes import output_size

REMEMBERED = 2**15  # layers: networks that are pruned, or filled into a budget, differ from the last one by a few


class Place(NamedTuple):
    """All that a layer's work depends on, but for channels and layouts."""

    kind: str
    mode: str
    kernel: tuple[int, int]
    strided: bool
    dilated: bool
    group: int
    """Channels that each output of a convolution reads, and 0 where it reads all."""
    pixels: int
    """Of its output."""
    inside: int
    """Of a convolution: the taps of all these pixels that do not fall into the padding."""
    first_read: tuple[int, ...]
    """For each value that it reads, where among them the same value stands first."""
    read_pixels: tuple[int, ...]
    read_alone: tuple[bool, ...]
    """Whether nothing else reads it."""
    producers: tuple[str, ...]
    """The kind of layer whose value it is, folded normalisation left out."""
    before_relu6: bool
    whole_factor: bool
    """Whether every length of its output is a multiple of what it reads first."""
    align_corners: bool


@dataclass(frozen=True, eq=False)
class SharedPlace:
    """A place as one object, however many layers have it: what it was compared with once is not compared again."""

    place: Place


@dataclass(frozen=True)
class _Alike:
    """A graph as that of any other whose layers do the same, however wide they are."""

    shapes: tuple[tuple[object, ...], ...]
    align_corners: bool
    graph: Graph = field(compare=False)


@functools.lru_cache(maxsize=32)  # a graph is asked for with many channels cut, one after the other
def places_in(graph: Graph, size: tuple[int, int]) -> tuple[SharedPlace, ...]:
    """What the work of each layer depends on beside the widths."""
    shapes = tuple([node.shape for node in graph.nodes])
    return _places_of(_Alike(shapes, graph.align_corners, graph), size)


@functools.lru_cache(maxsize=32)  # an architecture is asked for at many widths in a row
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
    """How many taps of a convolution, of all its output pixels together, read pixels and not padding."""
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
