"""SwiftNet's decoder: a ladder over the last stage of every stride."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

from space.choices import Axes, Choice, Questioner
from space.decoder import Decoder, Features
from space.encoder import Encoder
from space.graph import Graph, Node
from space.layers import preactivated, total
from space.rules import WIDEST, require, require_one_of, require_range

Taps = Literal["relu", "sum"]


@dataclass(frozen=True, kw_only=True)
class LadderDecoder(Decoder):
    """SwiftNet's decoder over the last stage of every stride from 4 on.

    `taps`: whether laterals read the outputs of stages (`relu`, as the released single-scale weights expect) or the
    sums before their last activation (`sum`, as the paper describes; `space.block.Output.raw`).
    """

    kind: Literal["ladder"] = "ladder"
    width: int
    taps: Taps = "sum"

    position: ClassVar[int] = 3
    axes: ClassVar[Axes] = {"decoder.taps": ("sum", "relu")}
    default_in_search: ClassVar[bool] = True
    searched: ClassVar[Axes] = {"decoder.taps": ("sum",)}
    takes_context: ClassVar[bool] = True
    takes_image_pyramid: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_one_of("decoder.taps", self.taps, get_args(Taps))
        require_range("decoder.width", self.width, 1, WIDEST)

    def stride(self, encoder: Encoder) -> int:
        return min(encoder.tap_strides)

    @classmethod
    def possible(cls, questions: Questioner, encoder: Encoder) -> bool:
        return len(encoder.tap_strides) > 1 and min(encoder.tap_strides) >= questions.finest_stride

    @classmethod
    def ask(cls, questions: Questioner, encoder: Encoder) -> Self:
        taps: Taps = "relu" if questions.text("decoder.taps", "decoder.taps") == "relu" else "sum"
        return cls(width=questions.integer("decoder.width", "decoder.width"), taps=taps)

    def answers(self) -> dict[str, Choice]:
        return {"decoder.taps": self.taps, "decoder.width": self.width}

    def check(self, encoder: Encoder) -> None:
        require(len(encoder.tap_strides) > 1, "decoder: a ladder needs stages of at least two strides")

    def add(self, graph: Graph, features: Features) -> Node:
        """From the coarsest tap up, each step upsamples, adds a lateral and blends them with a 3x3 convolution.

        With an image pyramid the laterals are plain 1x1 convolutions shared by its levels, and laterals of equal stride
        from different levels are summed ("interleaved pyramidal fusion").
        """
        stages = list(features.encoder.tap_strides.values())
        sums: dict[int, list[Node]] = {}
        for outputs in features.levels:
            for position, stage in enumerate(stages):
                tap = outputs.stages[stage].out if self.taps == "relu" else outputs.stages[stage].raw
                if len(features.levels) > 1:
                    lateral = graph.conv(tap, self.width, 1, f"lateral{position}")
                elif position == len(stages) - 1 and features.context is not None:
                    lateral = features.context.add(graph, tap, self.width)
                else:
                    lateral = preactivated(graph, tap, self.width, 1, f"lateral{position}")
                sums.setdefault(tap.output_stride[0], []).append(lateral)
        strides = sorted(sums, reverse=True)
        x = total(graph, sums[strides[0]])
        for stride in strides[1:]:
            x = total(graph, [graph.resize(x, (stride, stride)), *sums[stride]])
            x = preactivated(graph, x, self.width, 3, f"blend{stride}")
        return x

    def first_width(self) -> int:
        return self.width

    def with_widths(self, change: Callable[[int], int]) -> Self:
        return replace(self, width=change(self.width))

    def words(self) -> str:
        return f"ladder of {self.width} channels with lateral connections to every stride"


DECODER = LadderDecoder
