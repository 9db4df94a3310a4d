"""ESPNet's efficient spatial pyramid (Mehta 2018)."""

from __future__ import annotations

from space.block import Block, Output, Unit
from space.graph import Graph, Node

BRANCHES = 5


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """Efficient spatial pyramid: five dilated 3x3 branches, summed hierarchically; strided, ESPNet's downsampler."""
    n = unit.width // BRANCHES
    strided = unit.stride > 1
    y = graph.conv(x, n, 3 if strided else 1, "reduce", stride=unit.stride)
    first, *rest = (
        graph.conv(y, n if index else unit.width - 4 * n, 3, f"rate{rate}", dilation=rate)
        for index, rate in enumerate(unit.rates)
    )
    parts, running = [first], rest[0]
    parts.append(running)
    for branch in rest[1:]:
        running = graph.add(running, branch)
        parts.append(running)
    total = graph.cat(parts)
    if not strided:
        total = graph.add(total, x)
    return Output(out=graph.norm_act(total), raw=total)


BLOCK = Block(
    add=add,
    words="efficient spatial pyramid (ESP)",
    position=2,
    openings=("cat", "module"),
    branches=BRANCHES,
    narrowest=BRANCHES,
)
