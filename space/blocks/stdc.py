"""The short-term dense concatenation of STDC-Seg."""

from __future__ import annotations

from space.block import Block, Option, Output, Unit
from space.graph import Graph, Node
from space.rules import WIDEST, require_range


def add(graph: Graph, x: Node, unit: Unit) -> Output:
    """A 1x1 convolution followed by 3x3 convolutions, each half as wide as the one before, the last two equally wide;
    the outputs of all are concatenated. No shortcut.

    In a strided block, a strided depthwise convolution comes before the second convolution, and the first one's output
    is average-pooled before the concatenation.
    """
    given = []
    for index, width in enumerate(_parts(unit)):
        kernel = 1 if index == 0 else 3
        x = graph.conv(x, width, kernel, f"{index}_{kernel}x{kernel}", dilation=unit.rates[0], bias=unit.bias)
        x = graph.norm_act(x, f"{index}_")
        given.append(x)
        if index == 0 and unit.stride > 1:
            given = [graph.average_pool(x)]
            x = graph.norm(graph.depthwise(x, "depthwise", stride=unit.stride), "depthwise_norm")
    out = graph.cat(given)
    return Output(out=out, raw=out)


def _parts(unit: Unit) -> list[int]:
    """Channels of each part: half the width, a quarter, ..., the last two equal."""
    count = int(unit.options["parts"])
    return [unit.width // 2 ** min(index + 1, count - 1) for index in range(count)]


def width_unit(unit: Unit) -> int:
    """The narrowest part has `width / width_unit` channels."""
    return int(2 ** (int(unit.options["parts"]) - 1))


def check(unit: Unit) -> None:
    """Limits `parts`, so that the narrowest part of the widest block has at least one channel."""
    require_range("block_options.parts", int(unit.options["parts"]), 1, WIDEST.bit_length())


PARTS = Option(default=4, range=(3, 4))
BLOCK = Block(
    add=add,
    words="short-term dense",
    position=5,
    default_in_search=True,
    openings=("block",),
    options={"parts": PARTS},
    width_unit=width_unit,
    width_reason="so that its last parts have whole channels",
    narrowest=8,
    check=check,
    shortcut=False,
)
