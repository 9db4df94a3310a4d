"""The interface of decoders. Each kind is a file in `space/decoders/`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

from space.block import LAST
from space.choices import Axes, Choice, Questioner
from space.context import Context
from space.encoder import Encoded, Encoder
from space.graph import Graph, Node
from space.stage import DecoderStep

WIDTHS: Axes = {"decoder.width": (16, 32, 48, 64, 96, 128, 256)}  # shared by all kinds


@dataclass(frozen=True, kw_only=True)
class Features:
    """Inputs of a decoder."""

    levels: tuple[Encoded, ...]
    """Encoder outputs on each level of the image pyramid; a single level without one."""
    encoder: Encoder
    context: Context | None
    bias: bool

    @property
    def last(self) -> Node:
        """The output of the last stage, on the first level."""
        return self.levels[0].stages[-1].out

    def at_stride(self, stride: int) -> Node:
        """The last output at that stride, of a stage or of the stem, on the first level."""
        encoded = self.levels[0]
        nodes = (encoded.stem, *(stage.out for stage in encoded.stages))
        return next(node for node in reversed(nodes) if node.output_stride[0] == stride)


@dataclass(frozen=True, kw_only=True)
class Decoder(ABC):
    """The numbers of a decoder, its layers and its questions.

    A kind of decoder is a frozen dataclass with a field `kind: Literal["NAME"] = "NAME"` in front of its numbers. Rules
    on the numbers alone are checked in `__post_init__`, rules that depend on the encoder in `check`.
    """

    kind: str

    position: ClassVar[int] = LAST
    """Position among the options of the axis `decoder`. Samplers draw by position, so new kinds come last."""
    axes: ClassVar[Axes] = {}
    """The kind's own axes with their options; `decoder.width` is available to all kinds."""
    searched: ClassVar[Axes] = {}
    """Narrower options of these axes, used by a search by default."""
    default_in_search: ClassVar[bool] = False
    """Whether a search includes it by default."""
    head: ClassVar[str] = ""
    """The only kind of head that may follow; empty for a decoder that any other head may follow."""
    takes_context: ClassVar[bool] = False
    """Whether a context module may stand at its start."""
    takes_image_pyramid: ClassVar[bool] = False
    """Whether it can join the levels of an image pyramid."""

    @classmethod
    def possible(cls, questions: Questioner, encoder: Encoder) -> bool:
        """Whether some answers to its questions give a decoder for this encoder."""
        return True

    @classmethod
    def has_room(cls, questions: Questioner, stride: int) -> bool:
        """Whether it can follow an encoder that ends at this stride or a finer one, as far as the stride decides."""
        return True

    @classmethod
    @abstractmethod
    def ask(cls, questions: Questioner, encoder: Encoder) -> Self:
        """The decoder that the answers describe. Names of questions begin with `decoder.`."""

    @abstractmethod
    def answers(self) -> dict[str, Choice]:
        """The answers, by question, that describe it."""

    @abstractmethod
    def check(self, encoder: Encoder) -> None:
        """Raises: ArchitectureError when it cannot follow this encoder."""

    @abstractmethod
    def add(self, graph: Graph, features: Features) -> Node:
        """Add the layers, inside `graph.scope(scopes.DECODER)`; returns the last one."""

    @abstractmethod
    def first_width(self) -> int:
        """The width of the decoder, or of its first step."""

    def stride(self, encoder: Encoder) -> int | None:
        """Stride of its output; None if it has to be read from the graph."""
        return None

    def width_unit(self) -> int:
        """The number that its width must be a multiple of."""
        return 1

    def largest_width(self) -> int:
        """Width of the widest layer."""
        return self.first_width()

    @abstractmethod
    def with_widths(self, change: Callable[[int], int]) -> Self:
        """A copy with `change` applied to every width but that of a projection in front of the decoder."""

    def scaled(self, scale: Callable[[int], int]) -> Self:
        """A copy at other widths, each mapped by `scale`."""
        return self.with_widths(scale)

    @abstractmethod
    def words(self) -> str:
        """A description for people."""

    def rows(self) -> Mapping[str, DecoderStep]:
        """The sequences of blocks in it, by the scope of their layers."""
        return {}

    def with_rows(self, rows: Mapping[str, DecoderStep]) -> Self:
        """A copy with other sequences of blocks under the same names."""
        assert not rows, f"{self.kind} has no sequences of blocks"
        return self
