"""DABNet's depthwise asymmetric bottleneck (Li 2019)."""

from __future__ import annotations

from space.block import Block, Output, Unit
from space.graph import Graph, Node


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """A 3x3 convolution to half the width, two parallel pairs of depthwise 3x1 and 1x3 convolutions, of which one is
    dilated, their sum, and a 1x1 convolution back to the full width.

    Each is preceded by normalisation and activation; the residual sum is not followed by any.
    """
    y = graph.norm_act(graph.conv(graph.norm_act(x), unit.width // 2, 3, "3x3"), "3x3_")
    y = graph.add(_pair(graph, y, "near", 1), _pair(graph, y, "far", unit.rates[0]))
    total = graph.add(graph.conv(graph.norm_act(y, "sum_"), unit.width, 1, "1x1"), x)
    return Output(out=total, raw=total)


def _pair(graph: Graph, x: Node, name: str, rate: int) -> Node:
    with graph.scope(name):
        x = graph.norm_act(graph.depthwise(x, "3x1", kernel=(3, 1), dilation=rate), "3x1_")
        return graph.norm_act(graph.depthwise(x, "1x3", kernel=(1, 3), dilation=rate), "1x3_")


BLOCK = Block(
    add=add,
    words="depthwise asymmetric bottleneck",
    position=7,
    default_in_search=True,
    openings=("cat",),
    plain_down=True,
    width_unit=lambda unit: 2,
    width_reason="half of it is its inner width",
    narrowest=2,
    farthest=0.5,
)
