"""NDNet's decoder: a single skip connection to an earlier stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from space.choices import Choice, Questioner
from space.decoder import Decoder, Features
from space.encoder import Encoder
from space.graph import Graph, Node
from space.rules import WIDEST, require, require_range


@dataclass(frozen=True, kw_only=True)
class CatDecoder(Decoder):
    """NDNet's decoder: upsample to the size of an earlier stage's output, concatenate it, 1x1 convolution to `width`.

    `tap`: index of the earlier stage.
    """

    kind: Literal["cat"] = "cat"
    tap: int
    width: int

    position: ClassVar[int] = 2
    default_in_search: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_range("decoder.width", self.width, 1, WIDEST)

    def stride(self, encoder: Encoder) -> int:
        return encoder.strides[self.tap]

    @classmethod
    def possible(cls, questions: Questioner, encoder: Encoder) -> bool:
        return any(stride >= questions.finest_stride for stride in encoder.strides[:-1])

    @classmethod
    def ask(cls, questions: Questioner, encoder: Encoder) -> Self:
        finest, strides = questions.finest_stride, encoder.strides[:-1]
        tap = int(questions.ask("decoder.tap", [tap for tap, stride in enumerate(strides) if stride >= finest]))
        return cls(tap=tap, width=questions.integer("decoder.width", "decoder.width"))

    def answers(self) -> dict[str, Choice]:
        return {"decoder.tap": self.tap, "decoder.width": self.width}

    def check(self, encoder: Encoder) -> None:
        last = len(encoder.stages) - 2
        require(0 <= self.tap <= last, f"decoder.tap: expected an earlier stage, 0 to {last}, got {self.tap}")

    def add(self, graph: Graph, features: Features) -> Node:
        tap = features.levels[0].stages[self.tap].out
        x = graph.cat([graph.resize(features.last, tap.output_stride), tap])
        return graph.norm_act(graph.conv(x, self.width, 1, "conv"))

    def first_width(self) -> int:
        return self.width

    def with_widths(self, change: Callable[[int], int]) -> Self:
        return replace(self, width=change(self.width))

    def words(self) -> str:
        return f"concatenated with stage {self.tap + 1}, 1x1 convolution to {self.width} channels"


DECODER = CatDecoder
