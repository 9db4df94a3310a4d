"""MobileNetV2's inverted residual (Sandler 2018)."""

from __future__ import annotations

from space.block import Block, Output, Unit
from space.graph import Graph, Node


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """MobileNetV2's inverted residual: widen, depthwise 3x3, project linearly; identity shortcut if shapes agree."""
    y = x
    if unit.expansion > 1:
        y = graph.norm_act(graph.conv(x, len(x.channels) * unit.expansion, 1, "widen"), "widen_")
    y = graph.norm_act(graph.depthwise(y, "depthwise", stride=unit.stride, dilation=unit.rates[0]), "depthwise_")
    y = graph.norm(graph.conv(y, unit.width, 1, "project"), "project_norm")
    if unit.stride == 1 and len(x.channels) == unit.width:
        y = graph.add(y, x)
    return Output(out=y, raw=y)


BLOCK = Block(add=add, words="inverted residual", position=4, shared=("expansion",), default_in_search=True)
