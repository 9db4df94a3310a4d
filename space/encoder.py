"""The encoder: a stem, stages and a detail branch, and their outputs for decoders and heads."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from itertools import accumulate

from space import blocks, scopes
from space.block import Output
from space.detail import Detail
from space.graph import Graph, Node
from space.rules import require
from space.stage import Stage
from space.stem import Stem

FINEST_TAP = 4  # finest stride that a ladder taps


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Outputs of an encoder on one level of the image pyramid."""

    stem: Node
    stages: tuple[Output, ...]
    """The output of each stage."""
    sides: tuple[Output, ...] = ()
    """The same for each part of a detail branch."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """The stem and the stages, which reduce the resolution, and a branch beside them that keeps it.

    Raises: ArchitectureError when a stage cannot follow the layers before it, or the stages do not allow the branch.
    """

    stem: Stem
    stages: tuple[Stage, ...]
    detail: Detail | None = None

    def __post_init__(self) -> None:
        width = self.stem.out_width
        for index, stage in enumerate(self.stages):
            require(
                stage.down != "cat" or stage.width > width or blocks.kind(stage.block).plain_down,
                f"stages[{index}].width: cat adds to the {width} channels of its input; expected more, "
                f"got {stage.width}",
            )
            width = stage.out_width
        if self.detail is not None:
            self.detail.check(self.stages)

    @property
    def grows(self) -> tuple[bool, ...]:
        """For each stage, whether a `cat` downsampler adds channels to those of its input."""
        widths = (self.stem.out_width, *(stage.out_width for stage in self.stages))
        return tuple(
            stage.down == "cat" and stage.width > width for stage, width in zip(self.stages, widths[:-1], strict=True)
        )

    @property
    def strides(self) -> tuple[int, ...]:
        """Stride of each stage's output against the image."""
        return tuple(accumulate((stage.stride for stage in self.stages), operator.mul, initial=self.stem.stride))[1:]

    @property
    def strides_with_stem(self) -> tuple[int, ...]:
        """Stride of the stem's output and of each stage's output against the image."""
        return (self.stem.stride, *self.strides)

    @property
    def output_stride(self) -> int:
        """Stride of the encoder's output against the image."""
        return self.strides[-1] if self.stages else self.stem.stride

    @property
    def tap_strides(self) -> dict[int, int]:
        """Index of the last stage at each stride from 4 on, by stride, finest first: the taps of a ladder."""
        return {stride: index for index, stride in enumerate(self.strides) if stride >= FINEST_TAP}

    def add(self, graph: Graph, level: int, bias: bool) -> Encoded:
        """Add the encoder on one level of the image pyramid."""
        graph.level = level
        image = graph.resize(graph.image, (2**level, 2**level), mode="bicubic")
        x = stem = self.stem.add(graph, image, bias)
        outputs: list[Output] = []
        sides: list[Output] = []
        for index, stage in enumerate(self.stages):
            with graph.scope(f"{scopes.STAGE}{index}"):
                output = stage.add(graph, x, bias)
            if self.detail is not None and index > self.detail.start:
                passed = [each.width for each in self.stages[self.detail.start + 1 : index + 1]]
                read = sides[-1] if sides else outputs[-1]
                output, side = self.detail.add(graph, read.out, output, passed, bias)
                sides.append(side)
            outputs.append(output)
            x = output.out
        return Encoded(stem=stem, stages=tuple(outputs), sides=tuple(sides))
