"""A kind of block of another package: some 3x3 convolutions in a row beside a shortcut, how many is its own number."""

from __future__ import annotations

from space.block import Block, Option, Output, Unit
from space.graph import Graph, Node
from space.rules import require_range

WIDTH_UNIT, NARROWEST = 8, 40


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """`unit.options["repeats"]` convolutions, the first strided, all dilated alike."""
    y = x
    for index in range(int(unit.options["repeats"])):
        stride = unit.stride if index == 0 else 1
        y = graph.conv(y, unit.width, 3, f"conv{index}", stride=stride, dilation=unit.rates[0], bias=unit.bias)
        y = graph.norm_act(y, f"conv{index}_")
    if unit.stride == 1 and len(x.channels) == unit.width:
        y = graph.add(y, x)
    return Output(out=graph.act(y, "act"), raw=y)


def check(unit: Unit) -> None:
    """Raises: ArchitectureError for more convolutions than anybody wants."""
    require_range("block_options.repeats", float(unit.options["repeats"]), 1, 3)


BLOCK = Block(
    add=add,
    words="repeated convolution",
    options={"repeats": Option(default=2, range=(1, 2, 3))},
    width_unit=lambda unit: WIDTH_UNIT,
    narrowest=NARROWEST,
    check=check,
    in_decoders=True,
)
