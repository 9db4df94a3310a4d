"""NDNet's narrow bottleneck (Yang 2019)."""

from __future__ import annotations

from space.block import Block, Output, Unit
from space.graph import Graph, Node


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """NDNet's narrow bottleneck: two depthwise-separable convolutions, the first `width / expansion` wide.

    As in NDNet, a stage's first block has a projected shortcut even if only the dilation changes.
    """
    rate = unit.rates[0]
    y = graph.depthwise(x, "1_depthwise", stride=unit.stride, dilation=rate)
    y = graph.norm_act(graph.conv(y, unit.width // unit.expansion, 1, "1_pointwise"), "1_")
    y = graph.depthwise(y, "2_depthwise", dilation=rate)
    y = graph.norm(graph.conv(y, unit.width, 1, "2_pointwise"), "2_norm")
    shortcut = x
    if (unit.opening and (unit.stride > 1 or rate > 1)) or len(x.channels) != unit.width:
        shortcut = graph.depthwise(x, "projection_depthwise", stride=unit.stride, dilation=rate)
        shortcut = graph.norm(graph.conv(shortcut, unit.width, 1, "projection_pointwise"), "projection_norm")
    total = graph.add(y, shortcut)
    return Output(out=graph.act(total, "act"), raw=total)


BLOCK = Block(
    add=add,
    words="separable bottleneck",
    position=3,
    shared=("expansion",),
    width_unit=lambda unit: unit.expansion,
    width_reason="its expansion",
    in_decoders=True,
    default_in_search=True,
)
