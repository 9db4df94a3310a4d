"""Stages: sequences of blocks at one resolution, with a way to open and an optional fusion at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Self, get_args

from space import blocks, fusion, strict
from space.block import Factorization, Opening, Output, PairwiseFusion, Unit
from space.choices import Axes, Choice, text_of
from space.fusion import FUSIONS, Fuse
from space.graph import Graph, Node
from space.layers import cat_downsampler
from space.rules import DEEPEST, require, require_one_of, require_range

BlockName = Annotated[str, strict.OneOf(blocks.names)]

OPENINGS: Mapping[Opening, str] = {
    "cat": "opened by a strided convolution beside a max pool",
    "module": "opened by a strided block",
    "block": "its first block sets the stride",
}
FACTORIZATIONS: Mapping[Factorization, str] = {
    "none": "3x3 convolutions",
    "composite": "dilated convolutions split into 3x1 and 1x3",
    "all": "every convolution split into 3x1 and 1x3",
}
RATES = ("1", "2", "4", "2-4-8-16", "1-2-4-8", "1-2-3-4", "1-2-4-8-16")
AXES: Axes = {
    "stages": (2, 3, 4, 5, 6, 7),
    "factorization": tuple(FACTORIZATIONS),
    "down": tuple(OPENINGS),
    "fuse": ("none", *FUSIONS),
    "pairwise_fusion": get_args(PairwiseFusion),
    "stage.width": (16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 1024),
    "stage.depth": tuple(range(1, 17)),
    "stage.stride": (1, 2),
    "stage.rates": (*RATES, "14", "1-4-8", "1-2-4-4-8-10", "4-4-8-8-16-16", "1-1-2-4-4-4-4-14-14-14-14-14-14"),
    "stage.dropout": (0.0, 0.03, 0.1, 0.3),
    "stage.expansion": (1, 4, 6, 2, 3),
}
SEARCHED: Axes = {
    "stages": (2, 3, 4, 5),
    "pairwise_fusion": ("pairs",),
    "stage.width": (16, 24, 32, 48, 64, 96, 128, 192, 256, 384),
    "stage.depth": (1, 2, 3, 4, 6, 8, 12),
    "stage.rates": RATES,
    "stage.dropout": (0.0,),
    "stage.expansion": (2, 4, 6),
}


def decoder_blocks() -> tuple[str, ...]:
    """Kinds of blocks that may be used in decoder steps."""
    return tuple(name for name, kind in blocks.kinds().items() if kind.in_decoders)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A sequence of blocks at one resolution.

    `down`: how the stage opens. `cat` (ERFNet's downsampler; in DABNet a plain convolution if the width does not grow)
    and `module` (a strided block, FPLNet) come before the `depth` blocks; with `block`, the first of them is strided.
    `rates`: dilation rates. Kinds with branches (`fpl`, `esp`) use all of them in every block, other kinds use them in
    turn. `fuse`: the fusion at the end (FPLNet, Table VIII). `expansion`: the bottleneck ratio of `sep` and `bottle`,
    the widening of `inverted`. `dropout`: the probability in `nonbt`. `pairwise_fusion`: how FPL's branches are summed,
    which the paper leaves open. `block_options`: options that only this kind of block has. The width after a fusion is
    derived, see `out_width`.

    Raises: ArchitectureError for numbers that do not go together.
    """

    block: BlockName
    width: int
    depth: int
    stride: int
    rates: tuple[int, ...] = (1,)
    factorization: Factorization = "none"
    down: Opening = "block"
    fuse: Fuse = "none"
    dropout: float = 0.0
    expansion: int = 4
    pairwise_fusion: PairwiseFusion = "pairs"
    block_options: Mapping[str, Choice] = field(default_factory=dict, metadata=strict.LEFT_OUT_AT_DEFAULT)

    def __post_init__(self) -> None:
        require_one_of("down", self.down, tuple(OPENINGS))
        require_one_of("fuse", self.fuse, ("none", *FUSIONS))
        _complete(self)
        require_range("depth", self.depth, 1 if self.down == "block" else 0, DEEPEST)
        require(self.stride in (1, 2), f"stride: expected 1 or 2, got {self.stride}")
        openings = blocks.kind(self.block).openings
        if self.stride == 1:
            self._check_unstrided(openings)
        else:
            self._check_strided(openings)
        downsamplers = " or ".join(each for each in ("module", "cat") if each in openings and self.stride == 2)
        require(
            self.fuse == "none" or self.down != "block",
            f"fuse: {self.fuse} needs a downsampler's output to join; "
            + (f"use down {downsamplers}" if downsamplers else f"expected none here, got {self.fuse}"),
        )

    def _check_unstrided(self, openings: Sequence[Opening]) -> None:
        """A stage of stride 1, such as a part of a detail branch, cannot open with a layer that halves the size."""
        able = [name for name, kind in blocks.kinds().items() if "block" in kind.openings]
        require(
            "block" in openings,
            f"block: {self.block} opens with {' or '.join(openings)} only, which halves the size; at stride 1 expected "
            f"one of {', '.join(able)}; got {self.block}",
        )
        require(self.down == "block", f"down: {self.down} halves the size; at stride 1 expected block, got {self.down}")
        require(
            self.factorization != "all",
            "factorization: all needs down cat, which halves the size; at stride 1 expected none or composite, got all",
        )

    def _check_strided(self, openings: Sequence[Opening]) -> None:
        """A strided stage must open in a way that its kind of block supports."""
        others = " or ".join(opening for opening in ("module", "cat", "block") if opening in openings)
        if self.down == "module":
            able = " or ".join(name for name, kind in blocks.kinds().items() if "module" in kind.openings)
            require("module" in openings, f"down: module is a strided {able} block; for {self.block} use {others}")
        if self.down == "block":
            able = ", ".join(name for name, kind in blocks.kinds().items() if "block" in kind.openings)
            require(
                "block" in openings,
                f"down: stages of {self.block} cannot open with a strided block; use {others}, or a block among {able}",
            )
            require(
                self.factorization != "all",
                "down: a block whose first convolution is split (3x1 and 1x3) cannot be strided; use factorization "
                "none or composite, or down cat",
            )
        require(self.down in openings, f"down: stages of {self.block} cannot open with {self.down}; use {others}")

    def __hash__(self) -> int:
        return hash((self.block, self.width, self.depth, self.rates, self.down, self.fuse))

    @property
    def out_width(self) -> int:
        """Channels of the stage's output, after its fusion."""
        return fusion.out_width(self.width, self.fuse)

    @property
    def removable(self) -> range:
        """Indices of the blocks with an identity shortcut: all but one that opens the stage; none for kinds without."""
        if not blocks.kind(self.block).shortcut:
            return range(0)
        return range(1 if self.down == "block" else 0, self.depth)

    @property
    def narrowest(self) -> int:
        """The smallest width of its kind of block."""
        return blocks.kind(self.block).narrowest

    @property
    def width_unit(self) -> int:
        """The number that the width must be a multiple of."""
        return blocks.kind(self.block).width_unit(_unit(self, self.rates))

    def with_width(self, width: int) -> Self:
        """The stage at this width, rounded up to one that its blocks can have."""
        unit = self.width_unit
        return replace(self, width=-(-max(width, self.narrowest) // unit) * unit)

    def kept(self, indices: Sequence[int]) -> Self:
        """The stage with only the blocks at these indices."""
        return replace(self, depth=len(indices), rates=_kept_rates(self, indices))

    def add(self, graph: Graph, x: Node, bias: bool) -> Output:
        """Add the layers after `x`."""
        block = blocks.kind(self.block)
        shallow = None
        if self.down == "cat":
            with graph.scope("down"):
                x = shallow = cat_downsampler(graph, x, self.width, bias)
        elif self.down == "module":
            with graph.scope("down"):
                x = shallow = block.add(graph, x, _unit(self, _rates(self, 0), bias=bias, stride=self.stride)).out
        result = Output(out=x, raw=x)
        for index in range(self.depth):
            opening = index == 0 and self.down == "block"
            numbers = _unit(self, _rates(self, index), bias=bias, stride=self.stride if opening else 1, opening=opening)
            with graph.scope(f"block{index}"):
                result = block.add(graph, result.out, numbers)
        if self.fuse == "none":
            return result
        assert shallow is not None, "a fusion needs the output of a downsampler"
        fused = FUSIONS[self.fuse].add(graph, shallow, result.out)
        return Output(out=fused, raw=fused)

    def answers(self, name: str) -> dict[str, Choice]:
        """The answers, by question, that describe the stage called `name`."""
        own = {f"{name}.{each}": getattr(self, each) for each in ("width", "depth", "stride", "dropout", "expansion")}
        return (
            own
            | {f"{name}.rates": text_of(self.rates)}
            | {f"{name}.{option}": value for option, value in self.block_options.items()}
        )

    def words(self) -> str:
        """A description for people."""
        block = blocks.kind(self.block)
        rates = text_of(self.rates)
        if block.branches:
            dilation = f"branches dilated {rates}"
        else:
            dilation = "undilated" if set(self.rates) == {1} else f"dilated {rates} in turn"
        words = [
            f"{self.depth} {block.words} block{'' if self.depth == 1 else 's'} of {self.width} channels",
            f"stride {self.stride}",
            OPENINGS[self.down],
            dilation,
        ]
        if "factorization" in block.shared:
            words.append(FACTORIZATIONS[self.factorization])
        if "expansion" in block.shared:
            words.append(f"expansion {self.expansion}")
        words += [f"{option} {value}" for option, value in self.block_options.items()]
        if self.fuse != "none":
            words.append(f"fusion {self.fuse}")
        if self.dropout:
            words.append(f"dropout {self.dropout:g}")
        return "; ".join(words)


@dataclass(frozen=True, kw_only=True)
class DecoderStep:
    """A transposed convolution that doubles the resolution, and `depth` blocks after it.

    Raises: ArchitectureError for numbers that do not go together.
    """

    width: int
    depth: int
    block: Annotated[str, strict.OneOf(decoder_blocks)]
    rates: tuple[int, ...] = (1,)
    factorization: Factorization = "none"
    dropout: float = 0.0
    expansion: int = 4
    pairwise_fusion: PairwiseFusion = "pairs"
    block_options: Mapping[str, Choice] = field(default_factory=dict, metadata=strict.LEFT_OUT_AT_DEFAULT)

    def __post_init__(self) -> None:
        require(
            self.block in decoder_blocks(),
            f"block: expected one of {', '.join(decoder_blocks())} in a decoder, got {self.block!r}",
        )
        _complete(self)
        require_range("depth", self.depth, 0, DEEPEST)

    def __hash__(self) -> int:
        return hash((self.width, self.depth, self.block, self.rates))

    @property
    def narrowest(self) -> int:
        """The smallest width of its kind of block."""
        return blocks.kind(self.block).narrowest

    @property
    def width_unit(self) -> int:
        """The number that the width must be a multiple of."""
        return blocks.kind(self.block).width_unit(_unit(self, self.rates))

    @property
    def removable(self) -> range:
        """Indices of the blocks with an identity shortcut: all of them, or none for kinds without."""
        return range(self.depth if blocks.kind(self.block).shortcut else 0)

    def kept(self, indices: Sequence[int]) -> Self:
        """The step with only the blocks at these indices."""
        return replace(self, depth=len(indices), rates=_kept_rates(self, indices))

    def add(self, graph: Graph, x: Node, bias: bool) -> Node:
        """Add the layers after `x`; returns the last one."""
        x = graph.norm_act(graph.deconv(x, self.width, 3, "up"), "up_")
        for index in range(self.depth):
            with graph.scope(f"block{index}"):
                x = blocks.kind(self.block).add(graph, x, _unit(self, _rates(self, index), bias=bias)).out
        return x


def _complete(row: Stage | DecoderStep) -> None:
    """Fill in defaults of the blocks' options, and check all numbers."""
    block = blocks.kind(row.block)
    require_one_of("factorization", row.factorization, tuple(FACTORIZATIONS))
    require_one_of("pairwise_fusion", row.pairwise_fusion, get_args(PairwiseFusion))
    object.__setattr__(row, "dropout", float(row.dropout))  # 0 is 0.0: one value, one text, one key
    object.__setattr__(row, "block_options", block.all_options(row.block, row.block_options))
    block.check_unit(row.block, _unit(row, row.rates))


def _unit(
    row: Stage | DecoderStep, rates: tuple[int, ...], *, bias: bool = False, stride: int = 1, opening: bool = False
) -> Unit:
    return Unit(
        width=row.width,
        rates=rates,
        factorization=row.factorization,
        stride=stride,
        opening=opening,
        bias=bias,
        dropout=row.dropout,
        expansion=row.expansion,
        pairwise_fusion=row.pairwise_fusion,
        options=row.block_options,
    )


def _rates(row: Stage | DecoderStep, index: int) -> tuple[int, ...]:
    """The rates of block `index`: all of them for kinds with branches; other kinds use them in turn."""
    return row.rates if blocks.kind(row.block).branches else (row.rates[index % len(row.rates)],)


def _kept_rates(row: Stage | DecoderStep, indices: Sequence[int]) -> tuple[int, ...]:
    """The rates with which the blocks at `indices`, without the others, keep theirs."""
    if blocks.kind(row.block).branches or len(indices) == row.depth:
        return row.rates
    return tuple(row.rates[index % len(row.rates)] for index in indices) or row.rates[:1]
