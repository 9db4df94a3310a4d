"""SwiftNet's spatial pyramid pooling, and all that is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from space.choices import Axes, Choice, Questioner, numbers, text_of
from space.graph import Graph, Node
from space.layers import preactivated
from space.rules import WIDEST, require, require_range

AXES: Axes = {
    "context": ("none", "spp"),
    "context.bottleneck": (32, 64, 128),
    "context.grids": ("8-4-2", "4-2-1", "2-1"),
}


@dataclass(frozen=True, kw_only=True)
class SpatialPyramid:
    """SwiftNet's spatial pyramid pooling, at the start of a ladder."""

    bottleneck: int
    level_width: int
    grids: tuple[int, ...]

    def __post_init__(self) -> None:
        require_range("context.bottleneck", self.bottleneck, 1, WIDEST)
        require_range("context.level_width", self.level_width, 1, WIDEST)
        require(
            0 < len(self.grids) <= 8 and len(set(self.grids)) == len(self.grids),
            f"context.grids: expected 1 to 8 different row counts, got {list(self.grids)}",
        )
        for grid in self.grids:
            require_range("context.grids", grid, 1, 64)

    def largest_width(self) -> int:
        """The width of its widest layer."""
        return max(self.bottleneck, self.level_width)

    def add(self, graph: Graph, x: Node, width: int) -> Node:
        """Add its layers behind `x`; `width` channels come out.

        The released code runs its batch norms with momentum 0.005; ours keep 0.1, which a short training can settle.
        """
        with graph.scope("context"):
            x = preactivated(graph, x, self.bottleneck, 1, "bottleneck")
            parts = [x]
            for grid in self.grids:
                level = preactivated(graph, graph.grid_pool(x, grid), self.level_width, 1, f"grid{grid}")
                parts.append(graph.resize(level, x.stride))
            return preactivated(graph, graph.cat(parts), width, 1, "fuse")

    def scaled(self, scale: Callable[[int], int], factor: float) -> Self:
        """At other widths: `scale` gives one for each, `factor` the level's, which are too narrow to be rounded."""
        bottleneck = scale(self.bottleneck)
        return replace(self, bottleneck=bottleneck, level_width=max(1, round(self.level_width * factor)))

    def answers(self) -> dict[str, Choice]:
        """What each of its questions would have to be answered."""
        return {"context": "spp", "context.bottleneck": self.bottleneck, "context.grids": text_of(self.grids)}

    def words(self) -> str:
        """For people."""
        grids = ", ".join(str(grid) for grid in self.grids)
        return f"spatial pyramid pooling over {grids} rows, {self.bottleneck} channels"


def ask(questions: Questioner, output_stride: int) -> SpatialPyramid | None:
    """The context that the answers lead to; grids larger than the feature map are not offered."""
    height = -(-questions.size[0] // output_stride)
    possible = [grids for grids in questions.options("context.grids") if max(numbers(str(grids))) <= height]
    if questions.text("context", "context", lambda kind: kind == "none" or bool(possible)) == "none":
        return None
    bottleneck = questions.integer("context.bottleneck", "context.bottleneck")
    grids = questions.text("context.grids", "context.grids", lambda option: option in possible)
    return SpatialPyramid(bottleneck=bottleneck, level_width=bottleneck // 3, grids=numbers(grids))
