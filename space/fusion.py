"""Fusions at a stage's end, which join its features with those of its downsampler and the image (FPLNet, Table VIII).

Each fusion is defined by its entry of `FUSIONS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from space.graph import Graph, Node, Pair
from space.rules import IMAGE_CHANNELS

Fuse = Literal["none", "add", "concat", "image", "image_add", "image_concat", "fir"]


@dataclass(frozen=True, kw_only=True)
class Fusion:
    """A way to join features."""

    join: Callable[[Graph, Node, Node], list[Node]]
    """Computes the parts to concatenate from the downsampler's output and the stage's features."""
    widths: int
    """Total channels of these parts, in multiples of the stage's width."""
    image: bool = False
    """Whether the image, pooled to the same size, is concatenated too."""

    def out_width(self, width: int) -> int:
        """Channels after the fusion, for a stage of `width` channels."""
        return self.widths * width + (IMAGE_CHANNELS if self.image else 0)

    def add(self, graph: Graph, shallow: Node, deep: Node) -> Node:
        """Add the layers: the joined features, then normalisation and activation."""
        parts = self.join(graph, shallow, deep)
        if self.image:
            parts.append(_image_at(graph, deep.output_stride))
        return graph.norm_act(parts[0] if len(parts) == 1 else graph.cat(parts), "fuse_")


def _image_at(graph: Graph, stride: Pair) -> Node:
    """The input image average-pooled to a stride (ESPNet's and FPLNet's image insertion)."""
    image = graph.image
    while image.output_stride != stride:
        image = graph.average_pool(image)
    return image


def _deep(graph: Graph, shallow: Node, deep: Node) -> list[Node]:
    return [deep]


def _sum(graph: Graph, shallow: Node, deep: Node) -> list[Node]:
    return [graph.add(deep, shallow)]


def _both(graph: Graph, shallow: Node, deep: Node) -> list[Node]:
    return [deep, shallow]


def _residual_and_deep(graph: Graph, shallow: Node, deep: Node) -> list[Node]:
    return [graph.add(shallow, deep), deep]


FUSIONS: Mapping[str, Fusion] = {
    "add": Fusion(join=_sum, widths=1),
    "concat": Fusion(join=_both, widths=2),
    "image": Fusion(join=_deep, widths=1, image=True),
    "image_add": Fusion(join=_sum, widths=1, image=True),
    "image_concat": Fusion(join=_both, widths=2, image=True),
    "fir": Fusion(join=_residual_and_deep, widths=2, image=True),
}


def out_width(width: int, fuse: str) -> int:
    """Channels of a stage's output, given its `width` before the fusion."""
    return width if fuse == "none" else FUSIONS[fuse].out_width(width)
