"""RegSeg's and Fast-SCNN's decoders: a few upsampling steps, each of which joins features of the encoder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal, Self, get_args

from space.choices import Axes, Choice, Questioner, numbers, text_of
from space.decoder import Decoder, Features
from space.encoder import Encoder
from space.graph import Graph, Node
from space.rules import WIDEST, require, require_one_of, require_range

Join = Literal["add", "concat", "separable"]

JOINS = get_args(Join)
STRIDES = (4, 8, 16)  # strides that a search upsamples features to


@dataclass(frozen=True, kw_only=True)
class JoinStep:
    """Upsampling to a finer stride, joined by the encoder's last features at that stride.

    `add`: a lateral 1x1 convolution as wide as the upsampled features, a sum, a 3x3 convolution to `width`. `concat`: a
    lateral 1x1 convolution to `lateral` channels, concatenation, a 3x3 convolution to `width`. `separable`: a separable
    convolution of the upsampled features and a 1x1 convolution of the joining features, both to `width`; their sum is
    activated (Fast-SCNN's fusion). `lateral` is 0 except for `concat`.
    """

    stride: int
    join: Join
    width: int
    lateral: int = 0

    def __post_init__(self) -> None:
        require_one_of("join", self.join, JOINS)
        require_range("width", self.width, 1, WIDEST)
        if self.join == "concat":
            require_range("lateral", self.lateral, 1, WIDEST)
        else:
            require(self.lateral == 0, f"lateral: only for join concat; expected 0, got {self.lateral}")

    def add(self, graph: Graph, x: Node, tap: Node) -> Node:
        """Add the layers after `x`, joined by `tap`; returns the last one."""
        if self.join == "separable":
            up = graph.norm_act(graph.depthwise(graph.resize(x, tap.output_stride), "depthwise"), "depthwise_")
            up = graph.norm(graph.conv(up, self.width, 1, "up", bias=True), "up_norm")
            lateral = graph.norm(graph.conv(tap, self.width, 1, "lateral", bias=True), "lateral_norm")
            return graph.act(graph.add(up, lateral), "act")
        width = self.lateral or len(x.channels)
        lateral = graph.norm_act(graph.conv(tap, width, 1, "lateral"), "lateral_")
        up = graph.resize(x, tap.output_stride)
        joined = graph.cat([up, lateral]) if self.join == "concat" else graph.add(up, lateral)
        return graph.norm_act(graph.conv(joined, self.width, 3, "blend"), "blend_")


@dataclass(frozen=True, kw_only=True)
class StepwiseDecoder(Decoder):
    """A 1x1 convolution to `top` channels, then steps to finer strides.

    `bins`: numbers of rows and columns. For each, the features are average-pooled to that many cells, convolved (1x1)
    to `bin_width` channels and resized back; all are concatenated in front of the 1x1 convolution (PSPNet's pyramid
    pooling, as in Fast-SCNN).
    """

    kind: Literal["steps"] = "steps"
    top: int
    steps: tuple[JoinStep, ...]
    bins: tuple[int, ...] = ()
    bin_width: int = 0

    position: ClassVar[int] = 4
    default_in_search: ClassVar[bool] = True
    axes: ClassVar[Axes] = {
        "decoder.join": (*JOINS, "none"),
        "decoder.lateral": (8, 16, 32, 64),
        "decoder.finest": STRIDES,
        "decoder.bins": ("none", "1-2", "1-3", "1-2-4", "1-2-3-6"),
    }

    def __post_init__(self) -> None:
        require_range("decoder.top", self.top, 1, WIDEST)
        require(0 < len(self.steps) <= 4, f"decoder.steps: expected 1 to 4 steps, got {len(self.steps)}")
        strides = [step.stride for step in self.steps]
        falling = all(before > after for before, after in pairwise(strides))
        require(falling, f"decoder.steps: expected each stride finer than the one before, got {strides}")
        require(
            len(set(self.bins)) == len(self.bins) <= 8, f"decoder.bins: expected up to 8 different, got {self.bins}"
        )
        for each in self.bins:
            require_range("decoder.bins", each, 1, 64)
        if self.bins:
            require_range("decoder.bin_width", self.bin_width, 1, WIDEST)
        else:
            require(self.bin_width == 0, f"decoder.bin_width: there are no bins; expected 0, got {self.bin_width}")

    def stride(self, encoder: Encoder) -> int:
        return self.steps[-1].stride

    @classmethod
    def possible(cls, questions: Questioner, encoder: Encoder) -> bool:
        return (
            any(_reaches(questions, encoder, int(finest)) for finest in questions.options("decoder.finest"))
            and cls.has_room(questions, encoder.output_stride)
            and any(join != "none" for join in questions.options("decoder.join"))
        )

    @classmethod
    def has_room(cls, questions: Questioner, stride: int) -> bool:
        return any(_fits(str(bins), stride, questions.size) for bins in questions.options("decoder.bins"))

    @classmethod
    def ask(cls, questions: Questioner, encoder: Encoder) -> Self:
        finest = questions.integer(
            "decoder.finest", "decoder.finest", lambda stride: _reaches(questions, encoder, stride)
        )
        stride = encoder.output_stride
        bins = questions.text("decoder.bins", "decoder.bins", lambda bins: _fits(bins, stride, questions.size))
        top = questions.integer("decoder.top", "decoder.width")
        steps = []
        for stride in _strides(encoder, finest):
            name = f"decoder.stride{stride}"
            join = questions.text(f"{name}.join", "decoder.join", lambda kind, at=stride: kind != "none" or at > finest)  # type: ignore[misc]
            if join == "none":
                continue
            lateral = questions.integer(f"{name}.lateral", "decoder.lateral") if join == "concat" else 0
            blend = questions.integer(f"{name}.width", "decoder.width")
            steps.append(JoinStep(stride=stride, join=join, width=blend, lateral=lateral))  # type: ignore[arg-type]
        if bins == "none":
            return cls(top=top, steps=tuple(steps))
        return cls(top=top, steps=tuple(steps), bins=numbers(bins), bin_width=max(1, top // 4))

    def answers(self) -> dict[str, Choice]:
        found: dict[str, Choice] = {
            "decoder.finest": self.steps[-1].stride,
            "decoder.bins": text_of(self.bins) if self.bins else "none",
            "decoder.top": self.top,
        }
        found |= {f"decoder.stride{stride}.join": "none" for stride in STRIDES}
        for step in self.steps:
            for name in ("join", "lateral", "width"):
                found[f"decoder.stride{step.stride}.{name}"] = getattr(step, name)
        return found

    def check(self, encoder: Encoder) -> None:
        finer = sorted({stride for stride in encoder.strides_with_stem if stride < encoder.output_stride})
        for step in self.steps:
            require(
                step.stride in finer,
                f"decoder.steps: expected one of the encoder's strides that are finer than its end, {finer}; "
                f"got {step.stride}",
            )

    def add(self, graph: Graph, features: Features) -> Node:
        x = features.last
        parts = [x]
        for each in self.bins:
            pooled = graph.norm_act(
                graph.conv(graph.grid_pool(x, each, each), self.bin_width, 1, f"bin{each}"), f"bin{each}_"
            )
            parts.append(graph.resize(pooled, x.output_stride))
        x = graph.cat(parts) if self.bins else x
        x = graph.norm_act(graph.conv(x, self.top, 1, "top"), "top_")
        for index, step in enumerate(self.steps):
            with graph.scope(f"step{index}"):
                x = step.add(graph, x, features.at_stride(step.stride))
        return x

    def first_width(self) -> int:
        return self.top

    def largest_width(self) -> int:
        return max(self.top, self.bin_width, *(max(step.width, step.lateral) for step in self.steps))

    def with_widths(self, change: Callable[[int], int]) -> Self:
        steps = tuple(
            replace(step, width=change(step.width), lateral=change(step.lateral) if step.lateral else 0)
            for step in self.steps
        )
        bin_width = change(self.bin_width) if self.bins else 0
        return replace(self, top=change(self.top), steps=steps, bin_width=bin_width)

    def words(self) -> str:
        bins = f"pyramid pooling to {text_of(self.bins)} cells a side, " if self.bins else ""
        steps = "; ".join(f"at stride {step.stride} {_JOIN_WORDS[step.join]}, {step.width}" for step in self.steps)
        return f"{bins}1x1 convolution to {self.top} channels, then {steps} channels"


_JOIN_WORDS = {"add": "a lateral added", "concat": "a lateral concatenated", "separable": "two separable paths added"}


def _strides(encoder: Encoder, finest: int) -> tuple[int, ...]:
    """Strides of features to join on the way to `finest`, coarsest first; none if no features have that stride."""
    there = {stride for stride in encoder.strides_with_stem if finest <= stride < encoder.output_stride}
    return tuple(sorted(there, reverse=True)) if finest in there else ()


def _reaches(questions: Questioner, encoder: Encoder, finest: int) -> bool:
    """Whether steps can lead to the stride `finest`, and the logits may be that fine."""
    return finest >= questions.finest_stride and bool(_strides(encoder, finest))


def _fits(bins: str, stride: int, size: tuple[int, int]) -> bool:
    """Whether a feature map of this stride has at least as many rows and columns as the largest bin count."""
    shorter = -(-min(size) // stride)
    return bins == "none" or max(numbers(bins)) <= shorter


DECODER = StepwiseDecoder
