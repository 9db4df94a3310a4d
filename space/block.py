"""Kinds of encoder blocks, and the numbers of one block. Each kind is a file in `space/blocks/`."""

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
    """The numbers of one block."""

    width: int
    """Channels of the output."""
    rates: tuple[int, ...]
    """Dilation rates: one per branch, or the single rate of the block."""
    factorization: Factorization = "none"
    stride: int = 1
    """2 in a block that halves the resolution, else 1."""
    opening: bool = False
    """Whether the block is the first of a stage without a downsampler."""
    bias: bool = False
    dropout: float = 0.0
    expansion: int = 4
    pairwise_fusion: PairwiseFusion = "pairs"
    options: Mapping[str, Choice] = field(default_factory=dict)
    """Values of the options that only this kind of block has (`Block.options`)."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """A block's output, and the value that a ladder, a context or an auxiliary head may read instead of it."""

    out: Node
    raw: Node
    """The value before the last activation and, where a normalisation of the block's sum precedes that (`fpl`, `esp`),
    before both; the output itself in a block that does not end in an activation.
    """


@dataclass(frozen=True, kw_only=True)
class Option:
    """An option of one kind of block: its default, and the values that a search chooses from."""

    default: Choice
    range: tuple[Choice, ...]


def _no_rule(unit: Unit) -> None:
    """Default of `Block.check`: no further rules."""


def _any_width(unit: Unit) -> int:
    """Default of `Block.width_unit`: any width is allowed."""
    return 1


@dataclass(frozen=True, kw_only=True)
class Block:
    """A kind of encoder block."""

    add: Callable[[Graph, Node, Unit], Output]
    """Adds one block to a graph. Name layers relative to the block; the scope around them is already set."""
    words: str
    """What people call this kind of block, without the word "block"."""
    position: int = LAST
    """Position among the options of the axis `block`. Samplers draw by position, so new kinds come last."""
    openings: tuple[Opening, ...] = ("cat", "block")
    """How a stage can open (`Stage.down`). `module`: a strided block without a shortcut; `block`: the first block
    strides.
    """
    plain_down: bool = False
    """Whether `cat` may open a stage that is no wider than its input, with a strided convolution and no pool."""
    branches: int = 0
    """Number of parallel dilated convolutions, each with its own rate; with 0, blocks use the stage's rates in turn."""
    shared: tuple[Shared, ...] = ()
    """Numbers shared by several kinds that this kind uses; a search asks for them."""
    options: Mapping[str, Option] = field(default_factory=dict)
    """Numbers that only this kind has: `block_options` of a stage, and axes called `KIND.NAME`."""
    width_unit: Callable[[Unit], int] = _any_width
    """The number that widths must be a multiple of; searches and scaling use such widths only."""
    width_reason: str = ""
    """The reason for `width_unit`, shown in brackets when a width is refused."""
    narrowest: int = 1
    """The smallest width, in channels."""
    check: Callable[[Unit], None] = _no_rule
    """Further rules on the kind's own numbers, checked before `width_unit` is called. Raises: ArchitectureError that
    names the number to change.
    """
    farthest: float = 1.0
    """Largest dilation rate in a search, as a share of the feature map's shorter side: at higher rates the outer taps
    of a kernel mostly read padding.
    """
    opens_undilated: bool = False
    """Whether, in a search, the rates of a strided stage must begin with 1 if any such rates are offered."""
    shortcut: bool = True
    """Whether blocks that keep width and resolution have an identity shortcut; only those can be removed."""
    in_decoders: bool = False
    """Whether a decoder of transposed convolutions may use it."""
    in_image_pyramids: bool = False
    """Whether it has separate batch norms for each level of an image pyramid."""
    plain: bool = False
    """Whether its convolutions are made by `space.layers.plain_conv`, which can be re-parameterised."""
    default_in_search: bool = False
    """Whether a search includes it by default."""

    def __post_init__(self) -> None:
        taken = sorted(set(self.options) & ASKED_OF_STAGES)
        if taken:
            names = ", ".join(taken)
            raise UserError(f"expected block options whose names no number of a stage has, got {names}; rename them")

    def has_width(self, width: int, unit: Unit) -> bool:
        """Whether a block with the numbers of `unit` can have this width."""
        try:
            self.check(unit)
        except ArchitectureError:
            return False
        return width >= self.narrowest and width % self.width_unit(unit) == 0

    def check_unit(self, name: str, unit: Unit) -> None:
        """Check the numbers of a block of this kind, which is called `name`, wherever it is used.

        Raises: ArchitectureError for numbers that break a rule.
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
            f"dropout: {name} has no dropout; expected 0, got {unit.dropout:g}",
        )
        require(
            unit.factorization == "none" or "factorization" in self.shared,
            f"factorization: {name} cannot be factorized; expected none, got {unit.factorization}",
        )
        self.check(unit)
        enough = unit.width >= self.narrowest
        require(enough, f"width: {name} needs at least {self.narrowest} channels, got {unit.width}")
        multiple = self.width_unit(unit)
        reason = f" ({self.width_reason})" if self.width_reason else ""
        require(unit.width % multiple == 0, f"width: {name} needs a multiple of {multiple}{reason}, got {unit.width}")

    def all_options(self, name: str, given: Mapping[str, Choice]) -> dict[str, Choice]:
        """All options of this kind: the given values, and defaults for the rest.

        Raises: ArchitectureError for an option that this kind does not have, or a value of another type.
        """
        for option, value in given.items():
            if option not in self.options:
                known = nearest(option, self.options) if self.options else "it has no options; leave block_options out"
                raise ArchitectureError(f"block_options: {name} has no '{option}'; {known}")
            default = self.options[option].default
            require(
                type(value) is type(default),
                f"block_options.{option}: expected a value like {default!r}, got {value!r}",
            )
        return {option: given.get(option, about.default) for option, about in self.options.items()}
