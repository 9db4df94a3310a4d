"""ResNet's basic block (He 2016), ERFNet's non-bt-1D (Romera 2018, section III), and a block between the two."""

from __future__ import annotations

from space.block import Block, Output, Unit
from space.graph import Graph, Node


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """Non-bottleneck residual block of two 3x3 convolutions, each of which may be split into 3x1 and 1x3.

    Factorization `none` is ResNet's basic block, `all` is ERFNet's non-bt-1D, `composite` splits only the second
    convolution. Only the second is dilated. A strided or widening block has a 1x1 projection as its shortcut.
    """
    y = _convolution(graph, x, unit, "1", rate=1, stride=unit.stride, split=unit.factorization == "all")
    y = graph.norm_act(y, "1_")
    y = _convolution(graph, y, unit, "2", rate=unit.rates[0], stride=1, split=unit.factorization != "none")
    y = graph.dropout(graph.norm(y, "2_norm"), unit.dropout)
    shortcut = x
    if unit.stride > 1 or len(x.channels) != unit.width:
        shortcut = graph.conv(x, unit.width, 1, "projection", stride=unit.stride)
        # SwiftNet's pyramid shares the projection's normalisation between its levels.
        shortcut = graph.norm(shortcut, "projection_norm", per_level=False)
    total = graph.add(y, shortcut)
    return Output(out=graph.act(total, "act"), raw=total)


def _convolution(graph: Graph, x: Node, unit: Unit, name: str, *, rate: int, stride: int, split: bool) -> Node:
    if not split:
        return graph.conv(x, unit.width, 3, f"{name}_3x3", stride=stride, dilation=rate, bias=unit.bias)
    y = graph.conv(x, unit.width, (3, 1), f"{name}_3x1", dilation=rate, bias=unit.bias)
    y = graph.act(y, f"{name}_inner_act")
    return graph.conv(y, unit.width, (1, 3), f"{name}_1x3", dilation=rate, bias=unit.bias)


BLOCK = Block(
    add=add,
    words="non-bottleneck residual",
    position=0,
    shared=("factorization", "dropout"),
    in_decoders=True,
    in_image_pyramids=True,
    default_in_search=True,
)
