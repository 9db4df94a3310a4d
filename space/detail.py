"""A branch that keeps the resolution of a stage while the stages behind it become coarser (DDRNet), and its numbers."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from space import blocks, scopes
from space.block import Output
from space.choices import Axes, Choice, Questioner
from space.errors import ArchitectureError
from space.graph import Graph, Node
from space.layers import conv_norm
from space.rules import WIDEST, require, require_one_of, require_range
from space.stage import Stage

Exchange = Literal["both", "up"]

END = "bottle"  # the block that a search may end both branches with
END_EXPANSION = 2
AXES: Axes = {
    "detail": ("none", *get_args(Exchange)),
    "detail.stride": (8, 4, 16),
    "detail.width": (16, 24, 32, 48, 64, 96, 128),
    "detail.depth": (1, 2, 3, 4, 5, 6),
    "detail.bottles": (0, 1, 2),
}
Ends = Callable[[int], bool]
"""Whether an encoder may end at a stride, since a context that has to be there fits."""
WORDS: dict[Exchange, str] = {"both": "both branches take from each other", "up": "it takes from the trunk"}


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A branch beside the trunk (Hong 2021, "Deep Dual-resolution Networks").

    It begins with the output of the trunk's stage `start`; beside each later stage it has one of the `parts`, stages
    that never stride. Behind each part but the last, the branches exchange: the trunk's output, 1x1 convolved and
    brought up, is added to the detail branch, and with exchange `both` the detail branch's, by strided 3x3
    convolutions as wide as the stages passed, to the trunk. Both read what the other was before, and are activated
    behind the sums. The last part meets the trunk's end, or its context, in a sum.

    Raises: ArchitectureError for numbers that do not go together.
    """

    start: int
    exchange: Exchange
    parts: tuple[Stage, ...]

    def __post_init__(self) -> None:
        require_range("detail.start", self.start, 0, 12)
        require_one_of("detail.exchange", self.exchange, get_args(Exchange))
        require(len(self.parts) >= 2, f"detail.parts: expected at least two, got {len(self.parts)}")
        for index, part in enumerate(self.parts):
            require(
                part.stride == 1,
                f"detail.parts[{index}].stride: the branch keeps its resolution; expected 1, got {part.stride}",
            )

    def check(self, stages: Sequence[Stage]) -> None:
        """Rules that hang on the trunk. Raises: ArchitectureError when it cannot stand beside these stages."""
        require(
            self.start < len(stages) - 2,
            f"detail.start: at least two stages follow the one where it begins; expected at most "
            f"{len(stages) - 3}, got {self.start}",
        )
        later = len(stages) - 1 - self.start
        require(
            len(self.parts) == later,
            f"detail.parts: expected one beside each stage behind stage {self.start}, so {later}; "
            f"got {len(self.parts)}",
        )
        for index, stage in enumerate(stages[self.start :], self.start):
            require(
                stage.fuse == "none",
                f"stages[{index}].fuse: beside a detail branch expected none, got {stage.fuse}",
            )
            require(
                index == self.start or stage.stride == 2,
                f"stages[{index}].stride: behind the start of a detail branch expected 2, got {stage.stride}",
            )

    @property
    def out_width(self) -> int:
        """Channels of its output."""
        return self.parts[-1].width

    def first_width(self) -> int:
        """The width of its first part."""
        return self.parts[0].width

    def width_unit(self) -> int:
        """What its widths have to be multiples of."""
        return math.lcm(*(part.width_unit for part in self.parts))

    def rows(self) -> dict[str, Stage]:
        """Its parts by the scope of their layers."""
        return {f"{scopes.DETAIL}{index}": part for index, part in enumerate(self.parts)}

    def add(self, graph: Graph, read: Node, trunk: Output, widths: Sequence[int], bias: bool) -> tuple[Output, Output]:
        """Add the part beside the trunk's stage that gave `trunk`, behind `read`, and what the two exchange; the
        trunk's output now, and the branch's. `widths`: of the trunk's stages behind the start, that one the last.
        """
        number = len(widths) - 1
        part = self.parts[number]
        with graph.scope(f"{scopes.DETAIL}{number}"):
            side = part.add(graph, read, bias)
        if number == len(self.parts) - 1:
            return trunk, side
        with graph.scope(f"{scopes.EXCHANGE}{number}"):
            down = side.out
            if self.exchange == "both":
                for index, width in enumerate(widths):
                    down = graph.act(down, f"down{index}_act") if index else down
                    down = conv_norm(graph, down, width, 3, f"down{index}", stride=2)
            lateral = graph.resize(conv_norm(graph, trunk.out, part.width, 1, "lateral"), side.out.output_stride)
            if self.exchange == "both":
                trunk = _joined(graph, trunk, down, "trunk_act")
            return trunk, _joined(graph, side, lateral, "act")

    def merged(self, graph: Graph, end: Node, side: Output) -> Node:
        """The sum of the branch's last part and of the trunk's end, as wide, brought up to it."""
        return graph.add(unactivated(graph, side), graph.resize(end, side.out.output_stride))

    def with_widths(self, change: Callable[[int], int]) -> Self:
        """Every width changed, and brought to a multiple that its part can have."""
        return replace(self, parts=tuple(part.with_width(change(part.width)) for part in self.parts))

    def answers(self, stages: Sequence[Stage], stride: int) -> dict[str, Choice]:
        """What each of its questions would have to be answered, at a stride, beside these stages."""
        found: dict[str, Choice] = {
            "detail": self.exchange,
            "detail.stride": stride,
            "detail.width": self.first_width(),
            "detail.bottles": stages[-1].depth if has_end(stages) else 0,
        }
        return found | {f"{name}.depth": part.depth for name, part in self.rows().items()}

    def words(self) -> str:
        """For people."""
        parts = "; then ".join(part.words() for part in self.parts)
        return f"beside the stages behind stage {self.start + 1}, {WORDS[self.exchange]}: {parts}"


def unactivated(graph: Graph, output: Output) -> Node:
    """A stage's output before its activation, normalised where a normalisation stands in between."""
    return graph.nodes[output.out.inputs[0]] if output.out.kind == "act" else output.out


def has_end(stages: Sequence[Stage]) -> bool:
    """Whether stages of another block end in one of bottlenecks."""
    return stages[-1].block == END != stages[0].block


def _joined(graph: Graph, output: Output, term: Node, act: str) -> Output:
    total = graph.add(unactivated(graph, output), term)
    return Output(out=graph.act(total, act), before_activation=total)


def is_possible(questions: Questioner, stages: tuple[Stage, ...], strides: Sequence[int], fits: Ends) -> bool:
    """Whether something is left to answer beside these stages: no branch, or one."""
    alone = "none" in questions.options("detail") and strides[-1] >= questions.finest_stride and fits(strides[-1])
    return alone or _Questions(questions, stages, strides, fits).possible()


def ask(
    questions: Questioner, stages: tuple[Stage, ...], strides: Sequence[int], fits: Ends
) -> tuple[tuple[Stage, ...], Detail | None]:
    """The detail branch that the answers lead to, if any, and the stages beside which it stands: those given, or with
    one of bottlenecks behind them.
    """
    asked = _Questions(questions, stages, strides, fits)
    alone = strides[-1] >= questions.finest_stride and fits(strides[-1])
    kind = questions.pick_newer("detail", lambda kind: alone if kind == "none" else asked.possible())
    return (stages, None) if kind == "none" else asked.ask("up" if kind == "up" else "both")


def can_stand(questions: Questioner, strides: Sequence[int], block: str, fits: Ends) -> bool:
    """Whether a branch can stand beside stages of this block at these strides, as far as strides decide."""
    for begin in questions.options("detail.stride"):
        if begin not in strides or int(begin) < questions.finest_stride:
            continue
        behind = strides[len(strides) - 1 - strides[::-1].index(int(begin)) :]
        halving = all(later == 2 * before for before, later in itertools.pairwise(behind))
        for bottles in questions.options("detail.bottles"):
            more = int(bottles) > 0
            enough = len(behind) - 1 + more >= 2 and fits(_end_stride(strides[-1], int(bottles)))
            if halving and enough and not (more and block == END):
                return True
    return False


class _Questions:
    """The questions about a branch beside given stages."""

    def __init__(self, questions: Questioner, stages: tuple[Stage, ...], strides: Sequence[int], fits: Ends) -> None:
        self._questions = questions
        self._stages = stages
        self._output_stride = strides[-1]
        self._context_fits = fits
        self._start = {stride: index for index, stride in enumerate(strides)}

    def possible(self) -> bool:
        ask = self._questions
        ends = [self._fits(int(each)) and self._ends(int(more), int(each))
                for each in ask.options("detail.stride") for more in ask.options("detail.bottles")]  # fmt: skip
        return any(ends)

    def ask(self, exchange: Exchange) -> tuple[tuple[Stage, ...], Detail]:
        ask = self._questions
        bottles = [int(each) for each in ask.options("detail.bottles")]
        stride = ask.integer(
            "detail.stride",
            "detail.stride",
            lambda stride: self._fits(stride) and any(self._ends(each, stride) for each in bottles),
        )
        width = ask.integer(
            "detail.width",
            "detail.width",
            lambda width: self._has_width(width, stride) and any(self._ends(each, stride, width) for each in bottles),
        )
        bottle = ask.integer("detail.bottles", "detail.bottles", lambda count: self._ends(count, stride, width))
        stages = (*self._stages, *_end(self._stages[-1].width, bottle, 2))
        start = self._start[stride]
        parts: list[Stage] = []
        for stage in self._stages[start + 1 :]:
            depth = ask.integer(f"detail{len(parts)}.depth", "detail.depth")
            parts.append(_beside(stage, width, depth))
        return stages, Detail(start=start, exchange=exchange, parts=(*parts, *_end(width, min(bottle, 1), 1)))

    def _fits(self, stride: int) -> bool:
        """Whether a branch can begin at this stride, be as fine as logits may be, and have some width."""
        if stride not in self._start or stride < self._questions.finest_stride:
            return False
        start = self._start[stride]
        halving = all(stage.stride == 2 for stage in self._stages[start + 1 :])
        unfused = all(stage.fuse == "none" for stage in self._stages[start:])
        widths = self._questions.options("detail.width")
        return halving and unfused and any(self._has_width(int(width), stride) for width in widths)

    def _has_width(self, width: int, stride: int) -> bool:
        """Whether all parts can be so wide."""
        try:
            for stage in self._stages[self._start[stride] + 1 :]:
                _beside(stage, width, 1)
        except ArchitectureError:
            return False
        return True

    def _ends(self, bottles: int, stride: int, width: int = 1) -> bool:
        """Whether so many bottlenecks can end the trunk and a branch of `width` channels, and two stages stand behind
        the branch's start then, and a context that has to be there fits.
        """
        if not self._context_fits(_end_stride(self._output_stride, bottles)):
            return False
        later = len(self._stages) - 1 - self._start[stride] + (bottles > 0)
        widest = END_EXPANSION * max(width, self._stages[-1].width)
        return later >= 2 and (bottles == 0 or (self._stages[0].block != END and widest <= WIDEST))


def _beside(stage: Stage, width: int, depth: int) -> Stage:
    """A part like the stage that it stands beside.

    Raises: ArchitectureError for a width that its block cannot have, or a block that cannot open by itself.
    """
    require(not blocks.kind(stage.block).branches, f"block: {stage.block} needs rates of its own; use another")
    return replace(stage, width=width, depth=depth, stride=1, down="block", rates=(1,), dropout=0.0)


def _end_stride(stride: int, bottles: int) -> int:
    """Of stages that end at this stride, with so many bottlenecks behind them."""
    return 2 * stride if bottles else stride


def _end(width: int, depth: int, stride: int) -> tuple[Stage, ...]:
    """A stage of `depth` bottlenecks around `width` channels, if any."""
    if depth == 0:
        return ()
    outer = END_EXPANSION * width
    return (Stage(block=END, width=outer, depth=depth, stride=stride, expansion=END_EXPANSION),)
