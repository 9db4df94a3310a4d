"""A single 3x3 convolution, as in RDRNet's trunk and in VGG."""

from __future__ import annotations

from space.block import Block, Output, Unit
from space.graph import Graph, Node
from space.layers import plain_conv


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """A 3x3 convolution, normalised (or re-parameterised) and activated; no shortcut."""
    y = plain_conv(graph, x, unit.width, "3x3", stride=unit.stride, dilation=unit.rates[0], bias=unit.bias)
    return Output(out=graph.act(y, "act"), raw=y)


BLOCK = Block(add=add, words="plain", position=9, openings=("cat", "block"), shortcut=False, plain=True)
