"""What a kind of encoder block is, and one block's numbers. Each kind is a file in `space/blocks/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from space.choices import Choice
from space.errors import ArchitectureError, UserError, nearest
from space.graph import Graph, Node
from space.rules import WIDEST, require, require_range

Factorization = Literal["none", "composite", "all"]
PairwiseFusion = Literal["pairs", "stage1", "pairs_partial"]
Opening = Literal["cat", "module", "block"]
Shared = Literal["factorization", "pairwise_fusion", "dropout", "expansion"]

LAST = 1000
ASKED_OF_STAGES = frozenset({"width", "depth", "stride", "rates", "dropout", "expansion"})
WORST_RATE = 64


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One block's numbers: what it needs beyond its input."""

    width: int
    """Channels of its output."""
    rates: tuple[int, ...]
    """Dilation rates: one for each branch, or the one of this block."""
    factorization: Factorization = "none"
    stride: int = 1
    """2 in a block that halves the size."""
    opening: bool = False
    """Whether it is the first block of a stage without a downsampler."""
    bias: bool = False
    dropout: float = 0.0
    expansion: int = 4
    pairwise_fusion: PairwiseFusion = "pairs"
    options: Mapping[str, Choice] = field(default_factory=dict)
    """The numbers that only its kind has (`Block.options`)."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """What a block gives: its output, and the sum its last activation was applied to (where a ladder taps it)."""

    out: Node
    before_activation: Node


@dataclass(frozen=True, kw_only=True)
class Option:
    """A number that only one kind of block has: what it is unless given, and what a search may answer."""

    default: Choice
    range: tuple[Choice, ...]


def _no_rule(unit: Unit) -> None:
    """Nothing more to keep."""


def _any_width(unit: Unit) -> int:
    """Every width is a multiple of it."""
    return 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """A kind of encoder block: all that is known of it."""

    add: Callable[[Graph, Node, Unit], Output]
    """Adds one block to a graph. Layers are named inside the block; the scope around them is there already."""
    words: str
    """What people call it, in front of the word "block"."""
    position: int = LAST
    """Where it stands among the options of the axis `block`: samplers count places, so new kinds come last."""
    openings: tuple[Opening, ...] = ("cat", "block")
    """How a stage of it can open. `module`: as a strided block without a shortcut; `block`: its first block strides."""
    plain_down: bool = False
    """Whether `cat` may open a stage of it that is no wider than what comes in: by a strided convolution alone."""
    branches: int = 0
    """Parallel dilated convolutions, each with its own rate; with 0, the blocks of a stage use its rates in turn."""
    shared: tuple[Shared, ...] = ()
    """Which of the numbers that several kinds have this one uses; a search asks for these."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Numbers that only this kind has: `block_options` of a stage, axes called `KIND.NAME`."""
    width_unit: Callable[[Unit], int] = _any_width
    """What its width has to be a multiple of. A search, and whoever scales, offers only such widths."""
    width_reason: str = ""
    """Why, in brackets behind the unit when a width is refused."""
    narrowest: int = 1
    """The fewest channels."""
    check: Callable[[Unit], None] = _no_rule
    """Further rules, on its own numbers, which hold before `width_unit` is asked. Raises: ArchitectureError that names
    the number to change.
    """
    farthest: float = 1.0
    """The largest rate that a search gives it, as a share of the shorter side of a feature map: the outer rows of a
    kernel that reaches farther meet data in few places."""
    opens_undilated: bool = False
    """Whether a search has the block that strides undilated, where there are such rates."""
    shortcut: bool = True
    """Whether a block that neither strides nor widens adds to what it reads: only such blocks can be removed."""
    in_decoders: bool = False
    """Whether a decoder of transposed convolutions may use it."""
    in_image_pyramids: bool = False
    """Whether it keeps a batch normalisation for each level of an image pyramid."""
    plain: bool = False
    """Whether its convolutions are made by `space.layers.plain_conv`, which can be re-parameterised."""
    default_in_search: bool = False
    """Whether a search looks at it unless told otherwise."""

    def __post_init__(self) -> None:
        taken = sorted(set(self.options) & ASKED_OF_STAGES)
        if taken:
            raise UserError(f"expected names of a block's own numbers that stages have not, got {', '.join(taken)}")

    def has_width(self, width: int, unit: Unit) -> bool:
        """Whether a block whose other numbers are those of `unit` can be so wide."""
        try:
            self.check(unit)
        except ArchitectureError:
            return False
        return width >= self.narrowest and width % self.width_unit(unit) == 0

    def check_unit(self, name: str, unit: Unit) -> None:
        """Rules that its numbers keep wherever it stands; `name` is what it is called.

        Raises: ArchitectureError.
        """
        rates = unit.rates
        require_range("width", unit.width, 1, WIDEST)
        require(len(rates) > 0, "rates: expected at least one dilation rate, got none; write [1]")
        for rate in rates:
            require_range("rates", rate, 1, WORST_RATE)
        require_range("expansion", unit.expansion, 1, 16)
        require_range("dropout", unit.dropout, 0.0, 0.9)
        if self.branches:
            require(
                len(rates) == self.branches and len(set(rates)) == len(rates),
                f"rates: {name} has {self.branches} branches with a rate each, all different; got {list(rates)}",
            )
        require(
            unit.dropout == 0.0 or "dropout" in self.shared,
            f"dropout: {name} has none; expected 0, got {unit.dropout:g}",
        )
        require(
            unit.factorization == "none" or "factorization" in self.shared,
            f"factorization: {name} has none to choose; expected none, got {unit.factorization}",
        )
        self.check(unit)
        enough = unit.width >= self.narrowest
        require(enough, f"width: {name} needs at least {self.narrowest} channels, got {unit.width}")
        multiple = self.width_unit(unit)
        reason = f" ({self.width_reason})" if self.width_reason else ""
        require(unit.width % multiple == 0, f"width: {name} needs a multiple of {multiple}{reason}, got {unit.width}")

    def all_options(self, name: str, given: Mapping[str, Choice]) -> dict[str, Choice]:
        """The numbers that only this kind has, those that were not given at their defaults.

        Raises: ArchitectureError for a number that it has not, or one of another type.
        """
        for option, value in given.items():
            if option not in self.options:
                known = nearest(option, self.options) if self.options else "it has none; leave block_options out"
                raise ArchitectureError(f"block_options: {name} has no '{option}'; {known}")
            default = self.options[option].default
            require(
                type(value) is type(default),
                f"block_options.{option}: expected a value like {default!r}, got {value!r}",
            )
        return {option: given.get(option, about.default) for option, about in self.options.items()}
