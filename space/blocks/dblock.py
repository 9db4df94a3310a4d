"""RegSeg's D block (Gao 2021): RegNet's bottleneck with a grouped convolution that is dilated in half the channels."""

from __future__ import annotations

from space.block import Block, Option, Output, Unit
from space.graph import Graph, Node
from space.rules import WIDEST, require_range


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """A 1x1 convolution, a grouped 3x3 convolution, a squeeze-and-excitation gate and a 1x1 convolution, all as wide as
    the output.

    With a rate above 1, half of the channels are convolved without dilation and the other half at that rate. Each half
    has its own first 1x1 convolution and normalisation. This is equivalent to shared ones, and saves runtimes from
    splitting the map and from normalising after the concatenation. The shortcut is average-pooled in a strided block,
    and projected in a strided or widening one.
    """
    rates = (1,) if unit.rates[0] == 1 else (1, unit.rates[0])
    halves = [_half(graph, x, unit, unit.width // len(rates), rate) for rate in rates]
    y = halves[0] if len(halves) == 1 else graph.cat(halves)
    if unit.options["squeeze"]:
        hidden = max(1, len(x.channels) // int(unit.options["squeeze"]))
        gate = graph.conv(graph.grid_pool(y, 1, 1), hidden, 1, "squeeze", bias=True)
        gate = graph.conv(graph.act(gate, "squeeze_act"), unit.width, 1, "gate", bias=True)
        y = graph.gate(y, gate)
    y = graph.norm(graph.conv(y, unit.width, 1, "project"), "project_norm")
    shortcut = x
    if unit.stride > 1:
        shortcut = graph.average_pool(x, 2, 2)
    if unit.stride > 1 or len(x.channels) != unit.width:
        shortcut = graph.norm(graph.conv(shortcut, unit.width, 1, "projection"), "projection_norm")
    total = graph.add(y, shortcut)
    return Output(out=graph.act(total, "act"), raw=total)


def _half(graph: Graph, x: Node, unit: Unit, width: int, rate: int) -> Node:
    with graph.scope(f"rate{rate}"):
        y = graph.norm_act(graph.conv(x, width, 1, "reduce"), "reduce_")
        y = graph.grouped(y, "3x3", int(unit.options["group"]), stride=unit.stride, dilation=rate)
        return graph.norm_act(y, "3x3_")


def width_unit(unit: Unit) -> int:
    """Widths are whole groups, and whole groups in each half if there are halves."""
    group = int(unit.options["group"])
    return group if max(unit.rates) == 1 else 2 * group


def check(unit: Unit) -> None:
    """`group` is channels per group; the gate's hidden layer is narrower by `squeeze` than the input, 0 for no gate."""
    require_range("block_options.group", int(unit.options["group"]), 1, WIDEST)
    require_range("block_options.squeeze", int(unit.options["squeeze"]), 0, WIDEST)


GROUP = Option(default=16, range=(8, 16, 32))
BLOCK = Block(
    add=add,
    words="split dilated bottleneck",
    position=6,
    default_in_search=True,
    openings=("block",),
    options={"group": GROUP, "squeeze": Option(default=4, range=(0, 4))},
    width_unit=width_unit,
    width_reason="whole groups, in each half where rates are above 1",
    narrowest=8,
    farthest=0.5,
    opens_undilated=True,
    check=check,
)
