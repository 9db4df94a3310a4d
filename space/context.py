"""Context modules, which aggregate the whole image at the encoder's end: SwiftNet's and DDRNet's pyramids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

from space import scopes, strict
from space.choices import Axes, Choice, Questioner, numbers, text_of
from space.graph import Graph, Node
from space.layers import preactivated
from space.rules import WIDEST, require, require_one_of, require_range

ContextOrder = Literal["deep", "parallel"]

AXES: Axes = {
    "context": ("none", "spp", "pyramid"),
    "context.bottleneck": (32, 64, 128),
    "context.grids": ("8-4-2", "4-2-1", "2-1"),
    "context.order": get_args(ContextOrder),
    "context.width": (32, 48, 64, 96, 128),
    "context.strides": ("2-4", "2-4-8"),
}


@dataclass(frozen=True, kw_only=True)
class SpatialPyramid:
    """SwiftNet's spatial pyramid pooling, at the start of a ladder."""

    kind: Literal["spp"] = field(default="spp", metadata=strict.LEFT_OUT_AT_DEFAULT)
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
        """Width of the widest layer."""
        return max(self.bottleneck, self.level_width)

    def add(self, graph: Graph, x: Node, width: int) -> Node:
        """Add the layers after `x`; returns the output, `width` channels wide.

        The released code uses momentum 0.005 in its batch norms; ours use 0.1, which converges in a short training.
        """
        with graph.scope(scopes.CONTEXT):
            x = preactivated(graph, x, self.bottleneck, 1, "bottleneck")
            parts = [x]
            for grid in self.grids:
                level = preactivated(graph, graph.grid_pool(x, grid), self.level_width, 1, f"grid{grid}")
                parts.append(graph.resize(level, x.output_stride))
            return preactivated(graph, graph.cat(parts), width, 1, "fuse")

    def scaled(self, scale: Callable[[int], int], factor: float) -> Self:
        """A copy at other widths: `scale` maps the bottleneck's width; the levels', too narrow to be rounded to
        multiples, are multiplied by `factor`.
        """
        bottleneck = scale(self.bottleneck)
        return replace(self, bottleneck=bottleneck, level_width=max(1, round(self.level_width * factor)))

    def answers(self) -> dict[str, Choice]:
        """The answers, by question, that describe it."""
        return {"context": "spp", "context.bottleneck": self.bottleneck, "context.grids": text_of(self.grids)}

    def words(self) -> str:
        """A description for people."""
        grids = ", ".join(str(grid) for grid in self.grids)
        return f"spatial pyramid pooling over {grids} rows, {self.bottleneck} channels"


@dataclass(frozen=True, kw_only=True)
class PoolingPyramid:
    """Average pools over larger and larger windows and over the whole map, beside the map itself: DDRNet's DAPPM
    (`deep`) and PIDNet's PAPPM (`parallel`). It stands at the start of a ladder, or after the last stage of a network
    without a decoder.

    For each s of `strides`, windows of 2 s + 1 pixels move by s, zero padding included in the mean. Each pooled map is
    convolved to `width` channels, resized back and passed through a 3x3 convolution of its own, after a sum with the
    result for the window before it (`deep`) or with the convolved map itself (`parallel`; PIDNet writes this as one
    grouped convolution, which is equivalent).
    """

    kind: Literal["pyramid"] = "pyramid"
    order: ContextOrder
    width: int
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        require_one_of("context.order", self.order, get_args(ContextOrder))
        require_range("context.width", self.width, 1, WIDEST)
        rising = list(self.strides) == sorted(set(self.strides))
        require(
            0 < len(self.strides) <= 8 and rising,
            f"context.strides: expected 1 to 8 strides, each larger than the one before, got {list(self.strides)}",
        )
        for stride in self.strides:
            require_range("context.strides", stride, 2, 64)

    def largest_width(self) -> int:
        """Width of the widest layer."""
        return self.width

    def add(self, graph: Graph, x: Node, width: int) -> Node:
        """Add the layers after `x`; returns the output, `width` channels wide."""
        with graph.scope(scopes.CONTEXT):
            own = preactivated(graph, x, self.width, 1, "scale0")
            pooled = [graph.average_pool(x, 2 * stride + 1, stride) for stride in self.strides]
            means = [preactivated(graph, each, self.width, 1, f"scale{index}") for index, each in enumerate(pooled, 1)]
            means = [graph.resize(mean, x.output_stride) for mean in means]
            # The mean of the whole map is not resized: the sum broadcasts it.
            means.append(preactivated(graph, graph.grid_pool(x, 1, 1), self.width, 1, f"scale{len(means) + 1}"))
            processed = [own]
            for index, mean in enumerate(means, 1):
                beside = processed[-1] if self.order == "deep" else own
                processed.append(self._processed(graph, graph.add(beside, mean), f"process{index}"))
            squeezed = preactivated(graph, graph.cat(processed), width, 1, "squeeze")
            return graph.add(squeezed, preactivated(graph, x, width, 1, "shortcut"))

    def _processed(self, graph: Graph, x: Node, name: str) -> Node:
        """Normalise, activate, 3x3 convolution; with `rep`, it has a bias and trains as two paths (RDRNet's RPPM)."""
        x = graph.norm_act(x, f"{name}_", per_level=False)
        return graph.conv(x, self.width, 3, name, bias=graph.rep, paths="pair" if graph.rep else "")

    def scaled(self, scale: Callable[[int], int], factor: float) -> Self:
        """A copy at another width, which `scale` maps from the present one."""
        return replace(self, width=scale(self.width))

    def answers(self) -> dict[str, Choice]:
        """The answers, by question, that describe it."""
        own: dict[str, Choice] = {"context.order": self.order, "context.width": self.width}
        return {"context": "pyramid", "context.strides": text_of(self.strides), **own}

    def words(self) -> str:
        """A description for people."""
        windows = ", ".join(f"{2 * stride + 1}x{2 * stride + 1}" for stride in self.strides)
        way = "one after the other" if self.order == "deep" else "side by side"
        return f"average pools over windows of {windows} and the whole map, {self.width} channels, processed {way}"


Context = SpatialPyramid | PoolingPyramid


def ask(questions: Questioner, output_stride: int, *, alone: bool, pooled: bool = False) -> Context | None:
    """The context that the answers describe. Grids with more rows than the feature map and strides that leave a single
    window are not offered. `alone`: there is no decoder, so only a pyramid is possible, and without that option nothing
    is asked. `pooled`: the context has to be a pyramid.
    """
    if alone and "pyramid" not in questions.options("context"):
        return None
    grids, strides = _grids(questions, output_stride), _windows(questions, output_stride)
    possible = {"none": not pooled, "spp": bool(grids) and not alone and not pooled, "pyramid": bool(strides)}
    kind = questions.text("context", "context", possible.__getitem__)
    if kind == "none":
        return None
    if kind == "pyramid":
        order: ContextOrder = "deep" if questions.text("context.order", "context.order") == "deep" else "parallel"
        channels = questions.integer("context.width", "context.width")
        chosen = questions.text("context.strides", "context.strides", strides.__contains__)
        return PoolingPyramid(order=order, width=channels, strides=numbers(chosen))
    bottleneck = questions.integer("context.bottleneck", "context.bottleneck")
    rows = questions.text("context.grids", "context.grids", grids.__contains__)
    return SpatialPyramid(bottleneck=bottleneck, level_width=bottleneck // 3, grids=numbers(rows))


def is_possible(questions: Questioner, output_stride: int, *, alone: bool, pooled: bool) -> bool:
    """Whether `ask` finds an answer for an encoder that ends at this stride, and so for all that end at a finer one."""
    options = questions.options("context")
    if not pooled and ("none" in options or (alone and "pyramid" not in options)):
        return True
    if "pyramid" in options and _windows(questions, output_stride):
        return True
    return not alone and not pooled and "spp" in options and bool(_grids(questions, output_stride))


def _grids(questions: Questioner, output_stride: int) -> list[Choice]:
    """Options of `context.grids` that need no more rows than the feature map has."""
    height = -(-questions.size[0] // output_stride)
    return [each for each in questions.options("context.grids") if _most(each) <= height]


def _windows(questions: Questioner, output_stride: int) -> list[Choice]:
    """Options of `context.strides` with more than one window along each side of the feature map."""
    shorter = min(-(-length // output_stride) for length in questions.size)
    return [each for each in questions.options("context.strides") if _most(each) < shorter]


def _most(text: Choice) -> int:
    return max(numbers(str(text)))
