"""The bottleneck at the end of DDRNet's branches (Hong 2021): ResNet's without the last activation."""

from __future__ import annotations

from space.block import Block, Output, Unit
from space.graph import Graph, Node


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """1x1, 3x3 and 1x1 convolutions, the first two `width / expansion` wide; no activation after the residual sum.

    A strided or widening block has a 1x1 projection as its shortcut.
    """
    inner = unit.width // unit.expansion
    y = graph.norm_act(graph.conv(x, inner, 1, "reduce", bias=unit.bias), "reduce_")
    y = graph.conv(y, inner, 3, "3x3", stride=unit.stride, dilation=unit.rates[0], bias=unit.bias)
    y = graph.norm_act(y, "3x3_")
    y = graph.norm(graph.conv(y, unit.width, 1, "widen", bias=unit.bias), "widen_norm")
    shortcut = x
    if unit.stride > 1 or len(x.channels) != unit.width:
        shortcut = graph.norm(graph.conv(x, unit.width, 1, "projection", stride=unit.stride), "projection_norm")
    total = graph.add(y, shortcut)
    return Output(out=total, raw=total)


BLOCK = Block(
    add=add,
    words="bottleneck",
    position=8,
    openings=("cat", "block"),
    shared=("expansion",),
    width_unit=lambda unit: unit.expansion,
    width_reason="its expansion",
)
