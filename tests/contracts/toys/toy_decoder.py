"""A kind of decoder of another package: everything upsampled to the first stage's size and summed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from space.choices import Axes, Choice, Questioner
from space.decoder import Decoder, Features
from space.encoder import Encoder
from space.graph import Graph, Node
from space.layers import total
from space.rules import WIDEST, require, require_range


@dataclass(frozen=True, kw_only=True)
class SumDecoder(Decoder):
    """A 1x1 or 3x3 convolution on each of the last `taps` stages, upsampled and summed."""

    kind: Literal["toy-sum"] = "toy-sum"
    width: int
    taps: int
    kernel: int

    axes: ClassVar[Axes] = {"decoder.kernel": (1, 3)}

    def __post_init__(self) -> None:
        require_range("decoder.width", self.width, 1, WIDEST)
        require(self.kernel in (1, 3), f"decoder.kernel: expected 1 or 3, got {self.kernel}")

    @classmethod
    def ask(cls, questions: Questioner, encoder: Encoder) -> Self:
        taps = int(questions.ask("decoder.taps_joined", range(1, len(encoder.stages) + 1)))
        kernel = questions.integer("decoder.kernel", "decoder.kernel")
        return cls(width=questions.integer("decoder.width", "decoder.width"), taps=taps, kernel=kernel)

    def answers(self) -> dict[str, Choice]:
        return {"decoder.taps_joined": self.taps, "decoder.kernel": self.kernel, "decoder.width": self.width}

    def check(self, encoder: Encoder) -> None:
        require_range("decoder.taps", self.taps, 1, len(encoder.stages))

    def add(self, graph: Graph, features: Features) -> Node:
        outputs = features.levels[0].stages[-self.taps :]
        finest = outputs[0].out.output_stride
        laterals = [graph.conv(each.out, self.width, self.kernel, f"lateral{i}") for i, each in enumerate(outputs)]
        return graph.norm_act(total(graph, [graph.resize(lateral, finest) for lateral in laterals]), "sum_")

    def first_width(self) -> int:
        return self.width

    def with_widths(self, change: Callable[[int], int]) -> Self:
        return replace(self, width=change(self.width))

    def words(self) -> str:
        return f"sum of {self.taps} stages, {self.width} channels"


DECODER = SumDecoder
