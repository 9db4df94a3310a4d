"""`Architecture`: the one value that describes a network, exact to the last channel.

It holds the numbers of a stem, two to seven stages, an optional context module and decoder, and a head. The four
families (ERFNet, FPLNet, NDNet, SwiftNet) are points of it, and so is everything between them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from space import strict
from space.errors import ArchitectureError, UserError

if TYPE_CHECKING:
    from space.graph import Graph
    from space.network import Network

Block = Literal["nonbt", "fpl", "esp", "sep", "inverted"]
Factorization = Literal["none", "composite", "all"]
Fuse = Literal["none", "add", "concat", "image", "image_add", "image_concat", "fir"]
PairwiseFusion = Literal["pairs", "stage1", "pairs_partial"]

WIDEST = 4096
DEEPEST = 64
IMAGE_CHANNELS = 3
BRANCHES = {"fpl": 4, "esp": 5}  # parallel dilated convolutions per block, each with its own rate


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ArchitectureError(message)


def _require_range(name: str, value: float, low: float, high: float) -> None:
    _require(low <= value <= high, f"{name}: expected {low} to {high}, got {value}")


def _check_block(block: str, width: int, rates: tuple[int, ...], factorization: str, expansion: int) -> None:
    """Rules that a block's numbers keep wherever it stands."""
    _require_range("width", width, 1, WIDEST)
    _require(len(rates) > 0, "rates: expected at least one dilation rate, got none; write [1]")
    for rate in rates:
        _require_range("rates", rate, 1, 64)
    _require_range("expansion", expansion, 1, 16)
    if block in BRANCHES:
        _require(
            len(rates) == BRANCHES[block] and len(set(rates)) == len(rates),
            f"rates: {block} has {BRANCHES[block]} branches with a rate each, all different; got {list(rates)}",
        )
    if block == "fpl":
        _require(width % 4 == 0, f"width: fpl joins 4 branches of equal width; {width} is no multiple of 4")
    if block == "esp":
        _require(width >= 5, f"width: esp needs a channel for each of its 5 branches, got {width}")
    if block == "sep":
        _require(width % expansion == 0, f"width: sep needs a multiple of expansion (={expansion}), got {width}")
    _require(
        factorization == "none" or block in ("nonbt", "fpl"),
        f"factorization: {block} has none to choose; expected none, got {factorization}",
    )


@dataclass(frozen=True, kw_only=True)
class Stem:
    """First layers. `cat`: strided convolution beside a max pool (ENet, ERFNet); `convs`: `convolutions` 3x3
    convolutions, the first strided (FPLNet); `conv_pool`: the same, then a max pool (ResNet, NDNet).

    `image` joins the half-size image to the output (FPLNet).
    """

    kind: Literal["cat", "convs", "conv_pool"]
    width: int
    kernel: int = 3
    convolutions: int = 1
    image: bool = False

    def __post_init__(self) -> None:
        _require_range("stem.width", self.width, 1, WIDEST)
        _require(self.kernel in (3, 5, 7), f"stem.kernel: expected 3, 5 or 7, got {self.kernel}")
        _require_range("stem.convolutions", self.convolutions, 1, 8)
        if self.kind == "cat":
            _require(
                self.width > IMAGE_CHANNELS,
                f"stem.width: cat adds to the {IMAGE_CHANNELS} channels of the image; expected more, got {self.width}",
            )
            _require(self.kernel == 3 and self.convolutions == 1, "stem: cat is one 3x3 convolution beside a pool")
        _require(
            not self.image or self.kind == "convs", "stem.image: only a `convs` stem has the half-size image's size"
        )

    @property
    def stride(self) -> int:
        """Stride of the stem's output against the image."""
        return 4 if self.kind == "conv_pool" else 2

    @property
    def out_width(self) -> int:
        """Channels of the stem's output."""
        return self.width + (IMAGE_CHANNELS if self.image else 0)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Blocks at one resolution.

    `down`: how the stage opens. `cat` (ERFNet's downsampler) and `module` (a strided block, FPLNet) stand before the
    `depth` blocks; with `block` the first of them strides. `rates`: `fpl` and `esp` use all of them in every block;
    the others use them in turn. `fuse`: what is joined at the end (FPLNet, Table VIII). `expansion`: the bottleneck
    ratio of `sep` and the widening of `inverted`. `pairwise_fusion`: how FPL's branches are summed, open in the
    paper. Width after a fusion is derived: see `out_width`.
    """

    block: Block
    width: int
    depth: int
    stride: int
    rates: tuple[int, ...] = (1,)
    factorization: Factorization = "none"
    down: Literal["cat", "module", "block"] = "block"
    fuse: Fuse = "none"
    dropout: float = 0.0
    expansion: int = 4
    pairwise_fusion: PairwiseFusion = "pairs"

    def __post_init__(self) -> None:
        _check_block(self.block, self.width, self.rates, self.factorization, self.expansion)
        _require_range("depth", self.depth, 1 if self.down == "block" else 0, DEEPEST)
        _require(self.stride in (1, 2), f"stride: expected 1 or 2, got {self.stride}")
        object.__setattr__(self, "dropout", float(self.dropout))  # 0 is 0.0: one value, one text, one key
        _require_range("dropout", self.dropout, 0.0, 0.9)
        _require(self.down == "block" or self.stride == 2, f"down: {self.down} halves the size, so stride must be 2")
        if self.down == "module":
            _require(
                self.block in BRANCHES, f"down: module is a strided fpl or esp block; for {self.block} use cat or block"
            )
        if self.down == "block":
            _require(
                self.block not in BRANCHES,
                f"down: {self.block} has no shortcut to project; use module or cat",
            )
            _require(
                self.factorization != "all",
                "down: block cannot stride a 3x1/1x3 pair; use factorization none or composite, or down cat",
            )
        _require(
            self.fuse == "none" or self.down != "block",
            f"fuse: {self.fuse} needs a downsampler's output to join; use down cat or module",
        )

    @property
    def out_width(self) -> int:
        """Channels of the stage's output, after its fusion."""
        image = IMAGE_CHANNELS if self.fuse == "fir" or self.fuse.startswith("image") else 0
        return self.width * (2 if self.fuse in ("concat", "image_concat", "fir") else 1) + image


@dataclass(frozen=True, kw_only=True)
class SpatialPyramid:
    """SwiftNet's spatial pyramid pooling, at the start of a ladder."""

    bottleneck: int
    level_width: int
    grids: tuple[int, ...]

    def __post_init__(self) -> None:
        _require_range("context.bottleneck", self.bottleneck, 1, WIDEST)
        _require_range("context.level_width", self.level_width, 1, WIDEST)
        _require(
            0 < len(self.grids) <= 8 and len(set(self.grids)) == len(self.grids),
            f"context.grids: expected 1 to 8 different row counts, got {list(self.grids)}",
        )
        for grid in self.grids:
            _require_range("context.grids", grid, 1, 64)


@dataclass(frozen=True, kw_only=True)
class DecoderStep:
    """One transposed convolution that doubles the size, and `depth` blocks after it."""

    width: int
    depth: int
    block: Literal["nonbt", "fpl", "sep"]
    rates: tuple[int, ...] = (1,)
    factorization: Factorization = "none"
    dropout: float = 0.0
    expansion: int = 4
    pairwise_fusion: PairwiseFusion = "pairs"

    def __post_init__(self) -> None:
        _check_block(self.block, self.width, self.rates, self.factorization, self.expansion)
        _require_range("depth", self.depth, 0, DEEPEST)
        object.__setattr__(self, "dropout", float(self.dropout))
        _require_range("dropout", self.dropout, 0.0, 0.9)


@dataclass(frozen=True, kw_only=True)
class DeconvDecoder:
    """ERFNet's and FPLNet's decoder, up to half size. `projection` is a 1x1 convolution before it; 0 for none."""

    kind: Literal["deconv"] = "deconv"
    projection: int
    steps: tuple[DecoderStep, ...]

    def __post_init__(self) -> None:
        _require_range("decoder.projection", self.projection, 0, WIDEST)
        _require(len(self.steps) > 0, "decoder.steps: expected at least one step that doubles the size")


@dataclass(frozen=True, kw_only=True)
class CatDecoder:
    """NDNet's decoder: upsample to an earlier stage's output (`tap`), concatenate, 1x1 convolution to `width`."""

    kind: Literal["cat"] = "cat"
    tap: int
    width: int

    def __post_init__(self) -> None:
        _require_range("decoder.width", self.width, 1, WIDEST)


@dataclass(frozen=True, kw_only=True)
class LadderDecoder:
    """SwiftNet's decoder over the last stage of every stride.

    `taps`: whether laterals read stage outputs (`relu`, what the released single-scale weights need) or the sums
    before their last activation (`sum`, what the paper asks for).
    """

    kind: Literal["ladder"] = "ladder"
    width: int
    taps: Literal["relu", "sum"] = "sum"

    def __post_init__(self) -> None:
        _require_range("decoder.width", self.width, 1, WIDEST)


@dataclass(frozen=True, kw_only=True)
class Head:
    """From features to logits. `sep`: a separable convolution to `width` first; `preact`: normalise and activate
    first; `deconv2`: a transposed 2x2 convolution to full size; `width` is 0 where there is none to choose.
    """

    kind: Literal["linear", "linear_nobias", "sep", "preact", "deconv2"]
    width: int = 0

    def __post_init__(self) -> None:
        if self.kind == "sep":
            _require_range("head.width", self.width, 1, WIDEST)
        else:
            _require(self.width == 0, f"head.width: {self.kind} has no width of its own; expected 0, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class Auxiliary:
    """A head on a stage's output that only training sees: a separable convolution to `width` (0: none), then 1x1."""

    stage: int
    width: int
    weight: float

    def __post_init__(self) -> None:
        _require_range("auxiliary.width", self.width, 0, WIDEST)
        object.__setattr__(self, "weight", float(self.weight))
        _require_range("auxiliary.weight", self.weight, 0.0, 10.0)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A real-time segmentation network, every number explicit.

    `levels`: scales of an image pyramid (SwiftNet, section 3.3). `channels`: for a pruned network, how many channels
    are left in each cut group (names from `space.groups`); the rest of the fields say what it was cut from.

    Raises: ArchitectureError for a combination that cannot be built.
    """

    stem: Stem
    stages: tuple[Stage, ...]
    context: SpatialPyramid | None
    decoder: DeconvDecoder | CatDecoder | LadderDecoder | None
    head: Head
    activation: Literal["relu", "prelu", "relu6"]
    levels: int
    norm_epsilon: float
    bias: bool
    align_corners: bool
    auxiliary: tuple[Auxiliary, ...] = ()
    channels: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", dict(sorted(self.channels.items())))
        _require_range("stages", len(self.stages), 1, 12)
        _require_range("norm_epsilon", self.norm_epsilon, 1e-8, 0.1)
        _require_range("levels", self.levels, 1, 4)
        self._check_stages()
        self._check_decoder()
        for auxiliary in self.auxiliary:
            _require_range("auxiliary.stage", auxiliary.stage, 0, len(self.stages) - 1)
        if self.channels:
            from space.channels import check_channels

            check_channels(self.graph(1), self.channels)

    def __hash__(self) -> int:
        return hash(self.key)

    def _check_stages(self) -> None:
        width = self.stem.out_width
        for index, stage in enumerate(self.stages):
            _require(
                stage.down != "cat" or stage.width > width,
                f"stages[{index}].width: cat adds to the {width} channels that come in, so it must be larger; "
                f"got {stage.width}",
            )
            width = stage.out_width
        if self.levels > 1:
            _require(
                self.decoder is not None
                and self.decoder.kind == "ladder"
                and self.stem.kind != "cat"
                and not self.stem.image
                and all(s.block == "nonbt" and s.down == "block" and s.fuse == "none" for s in self.stages),
                "levels: an image pyramid needs a ladder decoder over nonbt stages with down block and no fusion",
            )
            _require(self.context is None, "context: an image pyramid replaces it; give null")

    def _check_decoder(self) -> None:
        decoder, head = self.decoder, self.head
        _require(
            self.context is None or (decoder is not None and decoder.kind == "ladder"),
            "context: spatial pyramid pooling starts a ladder; give decoder kind ladder, or context null",
        )
        is_deconv = decoder is not None and decoder.kind == "deconv"
        _require(
            (head.kind == "deconv2") == is_deconv, "head: a deconv decoder ends in a deconv2 head, and only that does"
        )
        if decoder is None:
            return
        if decoder.kind == "deconv":
            needed = int(math.log2(self.output_stride)) - 1
            _require(
                len(decoder.steps) == needed,
                f"decoder.steps: from stride {self.output_stride} to 2 takes {needed} steps, got {len(decoder.steps)}",
            )
        elif decoder.kind == "cat":
            _require(
                0 <= decoder.tap < len(self.stages) - 1,
                f"decoder.tap: expected an earlier stage, 0 to {len(self.stages) - 2}, got {decoder.tap}",
            )
        else:
            _require(len(self.tap_strides) > 1, "decoder: a ladder needs stages of at least two strides")

    @property
    def output_stride(self) -> int:
        """Stride of the encoder's output against the image."""
        return self.stem.stride * math.prod(stage.stride for stage in self.stages)

    @property
    def tap_strides(self) -> dict[int, int]:
        """Stride to index of the last stage that has it, finest first: what a ladder taps, from stride 4 on."""
        stride, taps = self.stem.stride, {}
        for index, stage in enumerate(self.stages):
            stride *= stage.stride
            taps[stride] = index
        return {stride: index for stride, index in taps.items() if stride >= 4}

    @classmethod
    def from_yaml(cls, text: str, source: str = "architecture") -> Architecture:
        """Read what `to_yaml` wrote.

        Raises: UserError (or ArchitectureError) with line, key, what was expected and the nearest valid name.
        """
        return strict.parse(text, cls, source)

    def to_yaml(self) -> str:
        """YAML text with every number explicit."""
        return strict.dump(self)

    @cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this architecture, the same in every process."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()[:12]

    def graph(self, num_classes: int, *, auxiliary: bool = False) -> Graph:
        """Its layers, at the widths before narrowing by `channels`."""
        from space.assemble import assemble

        return assemble(self, num_classes, auxiliary=auxiliary)

    def build(self, num_classes: int, *, auxiliary: bool = False) -> Network:
        """The network, newly initialised; with `auxiliary`, its training-only heads too.

        Raises: UserError for fewer than one class.
        """
        from space.network import Network

        if num_classes < 1:
            raise UserError(f"num_classes: expected at least 1, got {num_classes}")
        return Network(self, num_classes, auxiliary=auxiliary)

    def without_channels(self) -> Architecture:
        """What a pruned architecture was cut from; itself when it is not pruned."""
        return replace(self, channels={})
