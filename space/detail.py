"""A detail branch, which keeps the resolution of one stage while the following stages become coarser (DDRNet)."""

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

END = "bottle"  # kind of block in a last stage that a search may append to both branches
END_EXPANSION = 2
AXES: Axes = {
    "detail": ("none", *get_args(Exchange)),
    "detail.stride": (8, 4, 16),
    "detail.width": (16, 24, 32, 48, 64, 96, 128),
    "detail.depth": (1, 2, 3, 4, 5, 6),
    "detail.bottles": (0, 1, 2),
}
Ends = Callable[[int], bool]
"""Whether an encoder may end at a stride: whether the decoder or context that must follow fits there."""
WORDS: dict[Exchange, str] = {"both": "each branch adds to the other", "up": "the trunk adds to it"}


@dataclass(frozen=True, kw_only=True)
class Detail:
    """A branch beside the trunk (Hong 2021, "Deep Dual-resolution Networks").

    The branch reads the output of the trunk's stage `start`. It has one of the `parts`, stages of stride 1, beside each
    later stage of the trunk. After each part but the last, the branches exchange features: the trunk's output goes
    through a 1x1 convolution, is upsampled and added to the detail branch; with exchange `both`, the detail branch's
    output also goes through strided 3x3 convolutions, as wide as the trunk's stages on the way, and is added to the
    trunk. Each sum uses the other branch's output from before the exchange and is followed by an activation. The output
    of the last part is added to that of the trunk, or of its context.

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
        """Check the rules that depend on the trunk. Raises: ArchitectureError if these stages do not allow it."""
        require(
            self.start < len(stages) - 2,
            f"detail.start: at least two stages must follow the start; expected at most {len(stages) - 3}, "
            f"got {self.start}",
        )
        later = len(stages) - 1 - self.start
        require(
            len(self.parts) == later,
            f"detail.parts: expected {later}, one for each stage after stage {self.start}; got {len(self.parts)}",
        )
        for index, stage in enumerate(stages[self.start :], self.start):
            require(
                stage.fuse == "none",
                f"stages[{index}].fuse: expected none beside a detail branch, got {stage.fuse}",
            )
            require(
                index == self.start or stage.stride == 2,
                f"stages[{index}].stride: expected 2 after the start of a detail branch, got {stage.stride}",
            )

    @property
    def out_width(self) -> int:
        """Channels of the branch's output."""
        return self.parts[-1].width

    def first_width(self) -> int:
        """Width of the first part."""
        return self.parts[0].width

    def width_unit(self) -> int:
        """The number that its widths must be multiples of."""
        return math.lcm(*(part.width_unit for part in self.parts))

    def rows(self) -> dict[str, Stage]:
        """The parts by the scope of their layers."""
        return {f"{scopes.DETAIL}{index}": part for index, part in enumerate(self.parts)}

    def add(self, graph: Graph, read: Node, trunk: Output, widths: Sequence[int], bias: bool) -> tuple[Output, Output]:
        """Add the part beside the trunk's stage whose output is `trunk`, and the exchange after it.

        `read`: the part's input. `widths`: widths of the trunk's stages after the start, up to the present one.
        Returns the outputs of the trunk and of the branch after the exchange.
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
        """The sum of the branch's last output, before its activation, and `end`, upsampled; both equally wide."""
        return graph.add(unactivated(graph, side), graph.resize(end, side.out.output_stride))

    def with_widths(self, change: Callable[[int], int]) -> Self:
        """A copy with `change` applied to every width, rounded up to a width that the part can have."""
        return replace(self, parts=tuple(part.with_width(change(part.width)) for part in self.parts))

    def answers(self, stages: Sequence[Stage], stride: int) -> dict[str, Choice]:
        """The answers, by question, that describe it, at this stride beside these stages."""
        found: dict[str, Choice] = {
            "detail": self.exchange,
            "detail.stride": stride,
            "detail.width": self.first_width(),
            "detail.bottles": stages[-1].depth if has_end(stages) else 0,
        }
        return found | {f"{name}.depth": part.depth for name, part in self.rows().items()}

    def words(self) -> str:
        """A description for people."""
        parts = "; then ".join(part.words() for part in self.parts)
        return f"beside the stages after stage {self.start + 1}, {WORDS[self.exchange]}: {parts}"


def unactivated(graph: Graph, output: Output) -> Node:
    """A stage's output before its last activation, but after the normalisation in front of it, if any."""
    return graph.nodes[output.out.inputs[0]] if output.out.kind == "act" else output.out


def has_end(stages: Sequence[Stage]) -> bool:
    """Whether the last stage consists of bottlenecks and the first does not."""
    return stages[-1].block == END != stages[0].block


def _joined(graph: Graph, output: Output, term: Node, act: str) -> Output:
    total = graph.add(unactivated(graph, output), term)
    return Output(out=graph.act(total, act), raw=total)


def is_possible(questions: Questioner, stages: tuple[Stage, ...], strides: Sequence[int], fits: Ends) -> bool:
    """Whether `ask` finds an answer for these stages: no branch, or some branch."""
    alone = "none" in questions.options("detail") and strides[-1] >= questions.finest_stride and fits(strides[-1])
    return alone or _Questions(questions, stages, strides, fits).possible()


def ask(
    questions: Questioner, stages: tuple[Stage, ...], strides: Sequence[int], fits: Ends
) -> tuple[tuple[Stage, ...], Detail | None]:
    """The detail branch that the answers describe, if any, and the stages of the trunk: those given, possibly followed
    by a stage of bottlenecks.
    """
    asked = _Questions(questions, stages, strides, fits)
    alone = strides[-1] >= questions.finest_stride and fits(strides[-1])
    kind = questions.pick_newer("detail", lambda kind: alone if kind == "none" else asked.possible())
    return (stages, None) if kind == "none" else asked.ask("up" if kind == "up" else "both")


def can_stand(questions: Questioner, strides: Sequence[int], block: str, fits: Ends) -> bool:
    """Whether stages of this block at these strides allow a branch, as far as the strides decide."""
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
        """Whether a branch can start at this stride: later stages halve and do not fuse, the logits are not too fine,
        and some width is possible.
        """
        if stride not in self._start or stride < self._questions.finest_stride:
            return False
        start = self._start[stride]
        halving = all(stage.stride == 2 for stage in self._stages[start + 1 :])
        unfused = all(stage.fuse == "none" for stage in self._stages[start:])
        widths = self._questions.options("detail.width")
        return halving and unfused and any(self._has_width(int(width), stride) for width in widths)

    def _has_width(self, width: int, stride: int) -> bool:
        """Whether all parts can have this width."""
        try:
            for stage in self._stages[self._start[stride] + 1 :]:
                _beside(stage, width, 1)
        except ArchitectureError:
            return False
        return True

    def _ends(self, bottles: int, stride: int, width: int = 1) -> bool:
        """Whether the trunk and a branch of `width` channels can end with this number of bottlenecks: two stages follow
        the branch's start, the trunk is not of bottlenecks already, no width is too large, and what must follow fits.
        """
        if not self._context_fits(_end_stride(self._output_stride, bottles)):
            return False
        later = len(self._stages) - 1 - self._start[stride] + (bottles > 0)
        widest = END_EXPANSION * max(width, self._stages[-1].width)
        return later >= 2 and (bottles == 0 or (self._stages[0].block != END and widest <= WIDEST))


def _beside(stage: Stage, width: int, depth: int) -> Stage:
    """A part of the branch with the blocks of the stage that it stands beside.

    Raises: ArchitectureError for a width that the block cannot have, or a block that cannot open a stage of stride 1.
    """
    require(not blocks.kind(stage.block).branches, f"block: {stage.block} needs a rate per branch; use another")
    return replace(stage, width=width, depth=depth, stride=1, down="block", rates=(1,), dropout=0.0)


def _end_stride(stride: int, bottles: int) -> int:
    """Output stride of stages that end at `stride`, followed by this number of bottlenecks."""
    return 2 * stride if bottles else stride


def _end(width: int, depth: int, stride: int) -> tuple[Stage, ...]:
    """A stage of `depth` bottlenecks with `width` channels inside; none for depth 0."""
    if depth == 0:
        return ()
    outer = END_EXPANSION * width
    return (Stage(block=END, width=outer, depth=depth, stride=stride, expansion=END_EXPANSION),)
