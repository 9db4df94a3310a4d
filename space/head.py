"""Heads, from features to logits, and auxiliary heads, which exist in training only.

Each kind of head is defined by its entry of `HEADS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, Self, get_args

from space import scopes, strict
from space.choices import Axes, Choice, Questioner
from space.encoder import Encoded, Encoder
from space.graph import Graph, Node
from space.layers import preactivated, separable
from space.rules import WIDEST, require, require_one_of, require_range

Branch = Literal["trunk", "detail"]
Tap = Literal["act", "sum"]

AUXILIARY_WEIGHT = 0.4  # as in NDNet
MOST_WEIGHT = 10.0
AUXILIARY_WIDTH = 128  # of a `sep` auxiliary head in a search
DENSE_AUXILIARY_WIDTH = 32  # of a `conv3` auxiliary head in a search
STEM = -1  # the index of `Auxiliary.stage` that means the stem


def _as_it_is(graph: Graph, x: Node, width: int) -> Node:
    """No layers in front of the logits."""
    return x


def _activated(graph: Graph, x: Node, width: int) -> Node:
    return graph.norm_act(x, per_level=False)


def _preactivated(graph: Graph, x: Node, width: int) -> Node:
    return _activated(graph, preactivated(graph, x, width, 3, "conv"), width)


def _convolved(graph: Graph, x: Node, width: int) -> Node:
    return graph.norm_act(graph.conv(x, width, 3, "conv"))


def _twice_separable(graph: Graph, x: Node, width: int) -> Node:
    for index in range(2):
        with graph.scope(f"sep{index}"):
            x = graph.norm_act(graph.depthwise(x, "depthwise"), "depthwise_")
            x = graph.norm_act(graph.conv(x, width, 1, "pointwise"))
    return x


@dataclass(frozen=True, kw_only=True)
class HeadKind:
    """A kind of head."""

    words: str
    """A description for people."""
    read: Callable[[Graph, Node, int], Node] = _as_it_is
    """Adds the layers in front of the logits, given a width in channels (0 for kinds without); returns the last one."""
    has_width: bool = False
    """Whether the layers in front of the logits have a width to choose."""
    bias: bool = True
    """Whether the 1x1 convolution that computes the logits has a bias."""
    full_size: bool = False
    """Whether the logits have the image's size, from a transposed 2x2 convolution. For decoders that need this head."""
    in_auxiliaries: bool = False
    """Whether auxiliary heads may be of this kind; `ask_auxiliary` says which of them a search draws."""

    def add(self, graph: Graph, x: Node, width: int, logits: int) -> Node:
        """Add the layers after `x`; returns the logits, `logits` channels wide."""
        x = self.read(graph, x, width)
        if self.full_size:
            return graph.deconv(x, logits, 2, "logits", fixed=True)
        return graph.conv(x, logits, 1, "logits", bias=self.bias, fixed=True)


# Samplers draw by position, so new kinds come last.
HEADS: Mapping[str, HeadKind] = {
    "linear": HeadKind(words="1x1 convolution"),
    "linear_nobias": HeadKind(words="1x1 convolution without bias", bias=False),
    "sep": HeadKind(words="separable convolution, then 1x1", read=separable, has_width=True, in_auxiliaries=True),
    "preact": HeadKind(words="normalise, activate, 1x1 convolution", read=_activated),
    "deconv2": HeadKind(words="transposed 2x2 convolution to full size", full_size=True),
    "sep2": HeadKind(words="two separable convolutions, then 1x1", read=_twice_separable, has_width=True),
    "preact3": HeadKind(
        words="normalise, activate, 3x3 convolution, then the same with 1x1",
        read=_preactivated,
        has_width=True,
        in_auxiliaries=True,
    ),
    "conv3": HeadKind(words="3x3 convolution, then 1x1", read=_convolved, has_width=True, in_auxiliaries=True),
}
FULL_SIZE_HEADS = tuple(name for name, kind in HEADS.items() if kind.full_size)
AUXILIARY_HEADS = tuple(name for name, kind in HEADS.items() if kind.in_auxiliaries)
HeadName = Annotated[str, strict.OneOf(lambda: tuple(HEADS))]
AuxiliaryName = Annotated[str, strict.OneOf(lambda: AUXILIARY_HEADS)]
AXES: Axes = {
    "head": tuple(name for name in HEADS if name not in FULL_SIZE_HEADS),
    "head.width": (32, 64, 128),
    "head.shuffle": (1, 2, 4, 8),
    "auxiliary": ("none", "linear", "sep", "conv3", "preact3"),
    "auxiliary.branch": get_args(Branch),
    "auxiliary.tap": get_args(Tap),
    "auxiliary.width": (32, 64, 128),
}
SEARCHED: Axes = {
    "head.shuffle": (1,),
    "auxiliary": ("none",),
}


@dataclass(frozen=True, kw_only=True)
class Head:
    """From features to logits, by a last 1x1 convolution.

    In front of it, `sep` has a separable convolution to `width`; `sep2` two of them, also normalised and activated
    inside (as in public code for Fast-SCNN); `conv3` a normalised and activated 3x3 convolution to `width` (STDC);
    `preact` a normalisation and an activation; `preact3` these, a 3x3 convolution to `width`, and these again (DDRNet).
    `deconv2` is a transposed 2x2 convolution to full size instead. `width` is 0 for kinds without a width to choose.

    `shuffle`: the 1x1 convolution computes `shuffle` x `shuffle` logits per class and pixel, which become pixels (Shi
    et al., CVPR 2016, arXiv 1609.05158), so that there is less to interpolate.
    """

    kind: HeadName
    width: int = 0
    shuffle: int = field(default=1, metadata=strict.LEFT_OUT_AT_DEFAULT)

    def __post_init__(self) -> None:
        require_one_of("head.kind", self.kind, tuple(HEADS))
        if HEADS[self.kind].has_width:
            require_range("head.width", self.width, 1, WIDEST)
        else:
            require(self.width == 0, f"head.width: {self.kind} has no width of its own; expected 0, got {self.width}")
        sides = AXES["head.shuffle"]
        require(self.shuffle in sides, f"head.shuffle: expected one of {list(sides)}, got {self.shuffle}")
        require(
            self.shuffle == 1 or self.kind not in FULL_SIZE_HEADS,
            f"head.shuffle: a {self.kind} head gives logits at full size; give 1",
        )

    def add(self, graph: Graph, x: Node, num_classes: int) -> Node:
        """Add the layers after `x`; returns the logits."""
        with graph.head_scope(scopes.HEAD):
            logits = HEADS[self.kind].add(graph, x, self.width, num_classes * self.shuffle**2)
            return logits if self.shuffle == 1 else graph.shuffle(logits, self.shuffle)

    def scaled(self, scale: Callable[[int], int]) -> Self:
        """A copy at another width, mapped by `scale`, which keeps 0."""
        return replace(self, width=scale(self.width))

    def answers(self) -> dict[str, Choice]:
        """The answers, by question, that describe it."""
        return {"head": self.kind, "head.width": self.width, "head.shuffle": self.shuffle}

    def words(self) -> str:
        """A description for people."""
        width = f", {self.width} channels" if self.width else ""
        pixels = f", shuffled to {self.shuffle}x{self.shuffle} pixels" if self.shuffle > 1 else ""
        return HEADS[self.kind].words + width + pixels


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A head for training only, on the output of a stage, or of the stem (stage -1).

    It is a convolution to `width` (0: none), then a 1x1 convolution. The former is separable (`sep`) or a normalised
    and activated 3x3 (`conv3`, Fast-SCNN), with a normalisation and an activation in front of it too in `preact3`
    (DDRNet). On the `branch` detail, `stage` is the index of one of its parts. The `tap` sum reads the output before
    its last activation (`space.block.Output.raw`).
    """

    stage: int
    width: int
    weight: float
    kind: AuxiliaryName = field(default="sep", metadata=strict.LEFT_OUT_AT_DEFAULT)
    branch: Branch = field(default="trunk", metadata=strict.LEFT_OUT_AT_DEFAULT)
    tap: Tap = field(default="act", metadata=strict.LEFT_OUT_AT_DEFAULT)

    def __post_init__(self) -> None:
        require_range("auxiliary.width", self.width, 0, WIDEST)
        require_one_of("auxiliary.kind", self.kind, AUXILIARY_HEADS)
        require_one_of("auxiliary.branch", self.branch, get_args(Branch))
        require_one_of("auxiliary.tap", self.tap, get_args(Tap))
        require(self.width > 0 or self.kind == "sep", f"auxiliary.kind: {self.kind} needs a width; give one")
        object.__setattr__(self, "weight", float(self.weight))
        require_range("auxiliary.weight", self.weight, 0.0, MOST_WEIGHT)

    def check(self, encoder: Encoder) -> None:
        """Raises: ArchitectureError when there is no such stage, or part of the detail branch."""
        if self.branch == "trunk":
            require_range("auxiliary.stage", self.stage, STEM, len(encoder.stages) - 1)
            require(
                self.tap == "act" or self.stage != STEM, "auxiliary.tap: the stem can only be tapped at act; give act"
            )
            return
        require(encoder.detail is not None, "auxiliary.branch: there is no detail branch; give trunk")
        assert encoder.detail is not None, "as it says above"
        require_range("auxiliary.stage", self.stage, 0, len(encoder.detail.parts) - 1)

    def source(self, encoded: Encoded) -> Node:
        """The head's input."""
        if self.stage == STEM:
            return encoded.stem
        output = (encoded.stages if self.branch == "trunk" else encoded.sides)[self.stage]
        return output.out if self.tap == "act" else output.raw

    def add(self, graph: Graph, x: Node, num_classes: int, name: str) -> Node:
        """Add the layers after `x`, in a scope of this name; returns the logits."""
        with graph.head_scope(name):
            return HEADS[self._head].add(graph, x, self.width, num_classes)

    @property
    def _head(self) -> str:
        """The kind of head to build; without a width it is a 1x1 convolution alone."""
        return self.kind if self.width else "linear"

    def answers(self) -> dict[str, Choice]:
        """The answers, by question, that describe it."""
        own = {f"auxiliary.{name}": getattr(self, name) for name in ("stage", "branch", "tap", "width")}
        return {"auxiliary": self._head, **own}


def ask(questions: Questioner, only: str) -> Head:
    """The head that the answers describe; `only`: the kind of head that the decoder needs, or empty."""
    kind = only or questions.text("head", "head")
    return Head(kind=kind, width=questions.integer("head.width", "head.width") if HEADS[kind].has_width else 0)


def ask_auxiliary(questions: Questioner, encoder: Encoder) -> tuple[Auxiliary, ...]:
    """The auxiliary head that the answers describe, if any."""
    branches = _branches(questions, encoder)
    kind = questions.text("auxiliary", "auxiliary", lambda kind: kind != "preact3" or bool(branches))
    stages = len(encoder.stages)
    if kind == "none":
        return ()
    if kind == "conv3":
        stage = int(questions.ask("auxiliary.stage", range(STEM, stages)))
        return (Auxiliary(stage=stage, width=DENSE_AUXILIARY_WIDTH, weight=AUXILIARY_WEIGHT, kind="conv3"),)
    if kind == "preact3":
        branch: Branch = questions.text("auxiliary.branch", "auxiliary.branch", branches.__contains__)  # type: ignore[assignment]  # options are of the axis
        stage = int(questions.ask("auxiliary.stage", range(branches[branch])))
        tap: Tap = questions.text("auxiliary.tap", "auxiliary.tap")  # type: ignore[assignment]
        width = questions.integer("auxiliary.width", "auxiliary.width")
        return (Auxiliary(stage=stage, width=width, weight=AUXILIARY_WEIGHT, kind="preact3", branch=branch, tap=tap),)
    stage = int(questions.ask("auxiliary.stage", range(stages)))
    return (Auxiliary(stage=stage, width=AUXILIARY_WIDTH if kind == "sep" else 0, weight=AUXILIARY_WEIGHT),)


def _branches(questions: Questioner, encoder: Encoder) -> dict[str, int]:
    """Branches that an auxiliary head may be on, with their number of stages."""
    there = {"trunk": len(encoder.stages), "detail": 0 if encoder.detail is None else len(encoder.detail.parts)}
    return {name: count for name, count in there.items() if count and name in questions.options("auxiliary.branch")}
