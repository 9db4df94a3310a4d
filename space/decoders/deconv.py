"""ERFNet's and FPLNet's decoder: transposed convolutions, each followed by a few encoder blocks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from space import blocks, scopes
from space.block import Unit
from space.choices import Axes, Choice, Questioner
from space.decoder import Decoder, Features
from space.encoder import Encoder
from space.graph import Graph, Node
from space.rules import WIDEST, require, require_range
from space.stage import DecoderStep

UNIT = 4  # channels: scaled widths of the steps are multiples of this, and of what their blocks need
DEFAULT_BLOCK = "nonbt"  # if the encoder's kind of block cannot be used in decoders


@dataclass(frozen=True, kw_only=True)
class DeconvDecoder(Decoder):
    """ERFNet's and FPLNet's decoder, up to half the image's size.

    `projection`: channels of a 1x1 convolution in front of the steps; 0 for none.
    """

    kind: Literal["deconv"] = "deconv"
    projection: int
    steps: tuple[DecoderStep, ...]

    position: ClassVar[int] = 1
    axes: ClassVar[Axes] = {"decoder.depth": (0, 1, 2, 3), "decoder.projection": (0, 32, 64)}
    default_in_search: ClassVar[bool] = True
    head: ClassVar[str] = "deconv2"

    def __post_init__(self) -> None:
        require_range("decoder.projection", self.projection, 0, WIDEST)
        require(len(self.steps) > 0, "decoder.steps: expected at least one step that doubles the size")

    @classmethod
    def possible(cls, questions: Questioner, encoder: Encoder) -> bool:
        block = _block_behind(encoder)
        return any(_has_width(block, int(option)) for option in questions.options("decoder.width"))

    @classmethod
    def ask(cls, questions: Questioner, encoder: Encoder) -> Self:
        last, block = encoder.stages[-1], _block_behind(encoder)
        same = block == last.block
        projection = questions.integer("decoder.projection", "decoder.projection")
        depth = questions.integer("decoder.depth", "decoder.depth")
        steps: list[DecoderStep] = []
        for index in range(encoder.output_stride.bit_length() - 2):
            widest = steps[-1].width if steps else math.inf

            def allowed(width: int, widest: float = widest) -> bool:
                return width <= widest and _has_width(block, width)

            width = questions.integer(f"decoder.step{index}.width", "decoder.width", allowed)
            steps.append(
                DecoderStep(
                    width=width,
                    depth=depth,
                    block=block,
                    # rates of branches that fit the coarsest feature map also fit the finer ones
                    rates=last.rates if blocks.kind(block).branches else (1,),
                    factorization=last.factorization if same else "none",
                    pairwise_fusion=last.pairwise_fusion,
                    block_options=last.block_options if same else {},
                )
            )
        return cls(projection=projection, steps=tuple(steps))

    def answers(self) -> dict[str, Choice]:
        steps: dict[str, Choice] = {f"decoder.step{i}.width": step.width for i, step in enumerate(self.steps)}
        return {"decoder.projection": self.projection, "decoder.depth": self.steps[0].depth, **steps}

    def check(self, encoder: Encoder) -> None:
        stride = encoder.output_stride
        needed = int(math.log2(stride)) - 1
        steps = f"{needed} step{'' if needed == 1 else 's'}"
        require(
            len(self.steps) == needed,
            f"decoder.steps: expected {steps}, from stride {stride} to 2, got {len(self.steps)}",
        )

    def add(self, graph: Graph, features: Features) -> Node:
        x = features.last
        if self.projection:
            x = graph.conv(x, self.projection, 1, "projection")
        for index, step in enumerate(self.steps):
            with graph.scope(f"step{index}"):
                x = step.add(graph, x, features.bias)
        return x

    def first_width(self) -> int:
        return self.steps[0].width

    def width_unit(self) -> int:
        return math.lcm(*(step.width_unit for step in self.steps))

    def largest_width(self) -> int:
        return max(self.projection, *(step.width for step in self.steps))

    def with_widths(self, change: Callable[[int], int]) -> Self:
        return replace(self, steps=tuple(replace(step, width=change(step.width)) for step in self.steps))

    def scaled(self, scale: Callable[[int], int]) -> Self:
        unit, narrowest = math.lcm(UNIT, self.width_unit()), max(step.narrowest for step in self.steps)
        wider = self.with_widths(lambda width: -(-max(scale(width), narrowest) // unit) * unit)
        return replace(wider, projection=scale(self.projection))

    def words(self) -> str:
        projection = f"1x1 convolution to {self.projection} channels, then " if self.projection else ""
        steps = "; ".join(_step_words(step) for step in self.steps)
        return f"{projection}transposed convolutions to half size: {steps}"

    def rows(self) -> Mapping[str, DecoderStep]:
        return {f"{scopes.DECODER}.step{index}": step for index, step in enumerate(self.steps)}

    def with_rows(self, rows: Mapping[str, DecoderStep]) -> Self:
        return replace(self, steps=tuple(rows[name] for name in self.rows()))


def _block_behind(encoder: Encoder) -> str:
    """The kind of block for the decoder: that of the encoder's last stage, if it can be used in decoders."""
    last = encoder.stages[-1].block
    return last if blocks.kind(last).in_decoders else DEFAULT_BLOCK


def _has_width(name: str, width: int) -> bool:
    block = blocks.kind(name)
    return block.has_width(width, Unit(width=width, rates=(1,), options=block.all_options(name, {})))


def _step_words(step: DecoderStep) -> str:
    noun = f"{blocks.kind(step.block).words} block{'' if step.depth == 1 else 's'}"
    return f"{step.width} channels" + (f" with {step.depth} {noun}" if step.depth else "")


DECODER = DeconvDecoder
