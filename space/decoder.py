"""What a decoder is. Each kind is a file in `space/decoders/`."""

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

WIDTHS: Axes = {"decoder.width": (16, 32, 48, 64, 96, 128, 256)}  # that all kinds ask from


@dataclass(frozen=True, kw_only=True)
class Features:
    """What a decoder works with."""

    levels: tuple[Encoded, ...]
    """Of each level of the image pyramid (one, unless a network has one)."""
    encoder: Encoder
    context: Context | None
    bias: bool

    @property
    def last(self) -> Node:
        """The output of the last stage, on the first level."""
        return self.levels[0].stages[-1].out

    def at_stride(self, stride: int) -> Node:
        """The last output of that stride, of a stage or of the stem, on the first level."""
        encoded = self.levels[0]
        nodes = (encoded.stem, *(stage.out for stage in encoded.stages))
        return next(node for node in reversed(nodes) if node.output_stride[0] == stride)


@dataclass(frozen=True, kw_only=True)
class Decoder(ABC):
    """The numbers of a decoder, and all that is known of its kind.

    A kind is a frozen dataclass with a field `kind: Literal["its name"] = "its name"` in front of its numbers. Their
    own rules stand in its `__post_init__`, those that depend on the encoder in `check`.
    """

    kind: str

    position: ClassVar[int] = LAST
    """Where it stands among the options of the axis `decoder`: samplers count places, so new kinds come last."""
    axes: ClassVar[Axes] = {}
    """Its own axes, and what each ranges over; `decoder.width` is there for all."""
    searched: ClassVar[Axes] = {}
    """Narrower ranges of its axes, for a search that is not told otherwise."""
    default_in_search: ClassVar[bool] = False
    """Whether a search looks at it unless told otherwise."""
    head: ClassVar[str] = ""
    """The one kind of head that it ends in; empty where heads of all other kinds fit."""
    takes_context: ClassVar[bool] = False
    """Whether a context module may stand at its start."""
    takes_image_pyramid: ClassVar[bool] = False
    """Whether it joins the levels of an image pyramid."""

    @classmethod
    def possible(cls, questions: Questioner, encoder: Encoder) -> bool:
        """Whether it can follow an encoder at all, with the options that there are."""
        return True

    @classmethod
    def has_room(cls, questions: Questioner, stride: int) -> bool:
        """Whether it can follow what ends at this stride, and so all that ends finer, as far as that decides."""
        return True

    @classmethod
    @abstractmethod
    def ask(cls, questions: Questioner, encoder: Encoder) -> Self:
        """The decoder that the answers lead to. Names of questions begin with `decoder.`."""

    @abstractmethod
    def answers(self) -> dict[str, Choice]:
        """What each of its questions would have to be answered."""

    @abstractmethod
    def check(self, encoder: Encoder) -> None:
        """Raises: ArchitectureError when it cannot follow this encoder."""

    @abstractmethod
    def add(self, graph: Graph, features: Features) -> Node:
        """Add its layers, inside `graph.scope(scopes.DECODER)`; the last of them."""

    @abstractmethod
    def first_width(self) -> int:
        """Its width, or that of its first step."""

    def stride(self, encoder: Encoder) -> int | None:
        """Stride of the features that it gives; None where its layers have to be asked."""
        return None

    def width_unit(self) -> int:
        """What its width has to be a multiple of."""
        return 1

    def largest_width(self) -> int:
        """The width of its widest layer."""
        return self.first_width()

    @abstractmethod
    def with_widths(self, change: Callable[[int], int]) -> Self:
        """Every width changed, that of a projection in front of it left alone."""

    def scaled(self, scale: Callable[[int], int]) -> Self:
        """At other widths: `scale` gives one for each."""
        return self.with_widths(scale)

    @abstractmethod
    def words(self) -> str:
        """For people."""

    def rows(self) -> Mapping[str, DecoderStep]:
        """The rows of blocks in it, by the scope of their layers."""
        return {}

    def with_rows(self, rows: Mapping[str, DecoderStep]) -> Self:
        """With other rows of blocks under the same names."""
        assert not rows, f"{self.kind} has no rows of blocks"
        return self
