"""`Architecture`: the value that describes a network completely, down to every channel count.

It holds the numbers of a stem, one to twelve stages, an optional detail branch, context module and decoder, and a head.
ERFNet, FPLNet, NDNet, SwiftNet, Fast-SCNN, RegSeg, DABNet, STDC's backbone, DDRNet and RDRNet are points of this space,
and so are the networks between them.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Literal, get_args

from space import blocks, decoders, scopes, strict
from space.channels import check_channels, last_layer, widths
from space.choices import Axes
from space.context import Context
from space.decoder import Decoder, Features
from space.detail import Detail
from space.encoder import Encoded, Encoder
from space.errors import UserError
from space.graph import Graph, Node, Norm, Pair
from space.head import FULL_SIZE_HEADS, Auxiliary, Head
from space.layers import conv_norm
from space.rules import require, require_one_of, require_range
from space.stage import DecoderStep, Stage
from space.stem import Stem

if TYPE_CHECKING:
    from space.network import Network

Activation = Literal["relu", "prelu", "relu6"]

FULL_SIZE: Pair = (1, 1)
REMEMBERED = 32  # graphs: a network is counted, estimated and built from one graph, and so are its pruned versions
AXES: Axes = {
    "levels": (1, 2, 3),
    "activation": get_args(Activation),
    "norm_epsilon": (1e-5, 1e-3),
    "bias": (False, True),
    "align_corners": (False, True),
    "norm_momentum": (0.1, 0.03),
    "head_norm_epsilon": (0.0, 1e-5),
    "head_norm_momentum": (0.0, 0.1),
    "rep": (False, True),
    "label_stride": (1, 2, 4, 8),
}
SEARCHED: Axes = {
    "levels": (1,),
    "activation": ("relu", "prelu"),
    "norm_epsilon": (1e-3,),
    "bias": (False,),
    "align_corners": (False,),
    "norm_momentum": (0.1,),
    "head_norm_epsilon": (0.0,),
    "head_norm_momentum": (0.0,),
    "rep": (False,),
    "label_stride": (1, 2),
}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A real-time segmentation network, every number explicit.

    `levels`: number of scales of an image pyramid (SwiftNet, section 3.3). `channels`: for a pruned network, the number
    of channels left in each group that was cut (names from `space.groups`); the other fields describe the network
    before pruning. `norm_momentum`: momentum of the running statistics of batch norms. Heads use `head_norm_epsilon`
    and `head_norm_momentum` instead, where these are not 0.

    `rep`: train plain 3x3 convolutions as sums of several normalised paths (RDRNet). These are the 3x3 convolutions of
    a `pyramid` context, and those that `space.layers.plain_conv` makes: in kinds of blocks that are `Block.plain` and,
    unless separable, in the stem. All of them have a bias then, the latter in place of a normalisation.

    `label_stride`: with 2, logits are interpolated to half the image's size and each label covers 2x2 pixels, for a
    quarter of the interpolation and of the arg-max. At the stride of the features that the head reads, nothing is
    interpolated.

    Raises: ArchitectureError for a combination that cannot be built.
    """

    stem: Stem
    stages: tuple[Stage, ...]
    context: Context | None
    decoder: Annotated[Decoder | None, strict.Kinds(decoders.kinds)]
    head: Head
    activation: Activation
    levels: int
    norm_epsilon: float
    bias: bool
    align_corners: bool
    auxiliary: tuple[Auxiliary, ...] = ()
    channels: Mapping[str, int] = field(default_factory=dict)
    detail: Detail | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    norm_momentum: float = field(default=0.1, metadata=strict.LEFT_OUT_AT_DEFAULT)
    head_norm_epsilon: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    head_norm_momentum: float = field(default=0.0, metadata=strict.LEFT_OUT_AT_DEFAULT)
    rep: bool = field(default=False, metadata=strict.LEFT_OUT_AT_DEFAULT)
    label_stride: int = field(default=1, metadata=strict.LEFT_OUT_AT_DEFAULT)

    def __post_init__(self) -> None:
        object.__setattr__(self, "channels", dict(sorted(self.channels.items())))
        for name in ("norm_epsilon", "norm_momentum", "head_norm_epsilon", "head_norm_momentum"):
            object.__setattr__(self, name, float(getattr(self, name)))  # 1 is 1.0: one value, one text, one key
        require_range("stages", len(self.stages), 1, 12)
        require_range("norm_epsilon", self.norm_epsilon, 1e-8, 0.1)
        require_range("norm_momentum", self.norm_momentum, 1e-3, 1.0)
        if self.head_norm_epsilon:
            require_range("head_norm_epsilon", self.head_norm_epsilon, 1e-8, 0.1)
        if self.head_norm_momentum:
            require_range("head_norm_momentum", self.head_norm_momentum, 1e-3, 1.0)
        require_range("levels", self.levels, 1, 4)
        require_one_of("activation", self.activation, get_args(Activation))
        encoder = self.encoder  # also checks that each stage can follow the one before
        self._check_image_pyramid()
        self._check_decoder(encoder)
        for auxiliary in self.auxiliary:
            auxiliary.check(encoder)
        if self.rep:
            self._check_rep()
        strides = AXES["label_stride"]
        require(self.label_stride in strides, f"label_stride: expected one of {list(strides)}, got {self.label_stride}")
        require(
            self.label_stride == 1 or self.head.kind not in FULL_SIZE_HEADS,
            f"label_stride: a {self.head.kind} head gives logits at full size; give 1",
        )
        if self.label_stride > 1:
            require(
                self.label_stride <= self.logits_stride,
                f"label_stride: expected at most {self.logits_stride}, the stride of the features that the head reads; "
                f"got {self.label_stride}",
            )
        if self.head.shuffle > 1:
            most = self.logits_stride // self.label_stride
            require(
                self.head.shuffle <= most,
                f"head.shuffle: expected at most {most}, the stride of the head's features divided by label_stride; "
                f"got {self.head.shuffle}",
            )
        if self.channels:
            full = check_channels(self.graph(1), self.channels)
            cut = {name: count for name, count in self.channels.items() if count < full[name]}
            object.__setattr__(self, "channels", cut)  # drop counts that cut nothing: one network, one key

    def __hash__(self) -> int:
        # Hashing the key instead would take a hundred times as long.
        return hash((self.stem, self.stages, self.head, self.levels, tuple(self.channels.items())))

    def _check_image_pyramid(self) -> None:
        if self.levels == 1:
            return
        require(
            self.decoder is not None
            and self.decoder.takes_image_pyramid
            and allows_image_pyramid(self.encoder)
            and all(stage.fuse == "none" for stage in self.stages),
            "levels: an image pyramid needs a ladder decoder over nonbt stages with down block and no fusion",
        )
        require(self.context is None, "context: an image pyramid replaces it; give null")
        require(self.detail is None, "detail: an image pyramid cannot have a detail branch; leave it out")

    def _check_rep(self) -> None:
        require(
            self.levels == 1,
            "rep: the levels of an image pyramid cannot share training paths; give levels 1, or rep false",
        )
        require(not self.stem.bias, "stem.bias: with rep, convolutions have a bias anyway; leave it out")
        require(
            self.has_plain_convolutions,
            "rep: nothing to re-parameterise; give plain blocks, a stem of 3x3 convolutions or a pyramid context",
        )

    def _check_decoder(self, encoder: Encoder) -> None:
        decoder, head = self.decoder, self.head
        if self.context is not None and self.context.kind == "spp":
            require(
                decoder is not None and decoder.takes_context,
                "context: spatial pyramid pooling needs a ladder decoder; give decoder kind ladder, or context null",
            )
        require(
            self.context is None or decoder is None or decoder.takes_context,
            "context: a pyramid needs a ladder decoder or none; give decoder kind ladder or null, or context null",
        )
        require(
            self.detail is None or decoder is None,
            "decoder: a detail branch replaces it; give decoder null, or no detail",
        )
        wanted = "" if decoder is None else decoder.head
        for name, kind in decoders.kinds().items():
            require(
                not kind.head or (head.kind == kind.head) == (wanted == kind.head),
                f"head: a {name} decoder needs a {kind.head} head, and no other decoder can have one",
            )
        if decoder is not None:
            decoder.check(encoder)

    def has_room(self, label_stride: int, shuffle: int) -> bool:
        """Whether logits after a shuffle by this factor are no finer than labels of this stride."""
        coarse, times = self.head.kind not in FULL_SIZE_HEADS, label_stride * shuffle
        return times == 1 or (coarse and times <= self.logits_stride)

    @property
    def logits_stride(self) -> int:
        """Stride of the features that the head reads; found in the graph if the decoder does not give it."""
        if self.decoder is not None:
            return self.decoder.stride(self.encoder) or last_layer(self.graph(1)).output_stride[0]
        return self.encoder.strides[self.detail.start] if self.detail is not None else self.encoder.output_stride

    @functools.cached_property
    def encoder(self) -> Encoder:
        """The stem, the stages and the detail branch."""
        return Encoder(stem=self.stem, stages=self.stages, detail=self.detail)

    @property
    def has_plain_convolutions(self) -> bool:
        """Whether there are convolutions that `rep` re-parameterises."""
        rows = [row for row in self.rows().values() if isinstance(row, Stage)]
        in_blocks = any(blocks.kind(row.block).plain for row in rows)
        in_pyramid = self.context is not None and self.context.kind == "pyramid"
        return self.stem.is_plain or in_blocks or in_pyramid

    @property
    def is_reparameterized(self) -> bool:
        """Whether the network is trained in another form than the one that is deployed."""
        return self.rep and not self.channels and any(node.paths for node in self.graph(1).nodes)

    @property
    def output_stride(self) -> int:
        """Stride of the encoder's output against the image."""
        return self.encoder.output_stride

    @property
    def tap_strides(self) -> dict[int, int]:
        """Index of the last stage at each stride from 4 on, by stride, finest first: the taps of a ladder."""
        return self.encoder.tap_strides

    @classmethod
    def from_yaml(cls, text: str, source: str = "architecture") -> Architecture:
        """Read what `to_yaml` wrote.

        Raises: UserError (or ArchitectureError) with line, key, what was expected and the nearest valid name.
        """
        return strict.parse(text, cls, source)

    def to_yaml(self) -> str:
        """YAML text with every number explicit."""
        return strict.dump(self)

    @functools.cached_property
    def key(self) -> str:
        """Twelve hexadecimal digits that name this architecture, the same in every process."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()[:12]

    def graph(self, num_classes: int, *, auxiliary: bool = False) -> Graph:
        """The layers for `num_classes` logits, at their widths before pruning (`channels`). The graph is cached and
        shared: do not change it.

        The graph's outputs are the logits at the input's size and, with `auxiliary`, those of each auxiliary head.
        """
        return _graph(self.without_channels() if self.channels else self, num_classes, auxiliary)

    def _layers(self, num_classes: int, auxiliary: bool) -> Graph:
        norm = Norm(epsilon=self.norm_epsilon, momentum=self.norm_momentum)
        graph = Graph(
            activation=self.activation,
            align_corners=self.align_corners,
            levels=self.levels,
            norm=norm,
            head_norm=Norm(
                epsilon=self.head_norm_epsilon or norm.epsilon, momentum=self.head_norm_momentum or norm.momentum
            ),
            rep=self.rep,
        )
        encoder = self.encoder
        levels = []
        for level in range(self.levels):
            levels.append(encoder.add(graph, level, self.bias))
            graph.encoder_nodes = graph.encoder_nodes or len(graph.nodes)
        features = Features(levels=tuple(levels), encoder=encoder, context=self.context, bias=self.bias)
        if self.decoder is None:
            x = self._end(graph, levels[0])
        else:
            with graph.scope(scopes.DECODER):
                x = self.decoder.add(graph, features)
        logits = graph.resize(self.head.add(graph, x, num_classes), (self.label_stride, self.label_stride))
        graph.outputs.append(logits if self.label_stride == 1 else graph.repeat(logits))
        if auxiliary:
            for index, each in enumerate(self.auxiliary):
                logits = each.add(graph, each.source(levels[0]), num_classes, f"{scopes.AUXILIARY}{index}")
                graph.outputs.append(graph.resize(logits, FULL_SIZE))
        graph.drop_unused()
        return graph

    def _end(self, graph: Graph, encoded: Encoded) -> Node:
        """The head's input if there is no decoder."""
        last, detail = encoded.stages[-1], self.detail
        if self.context is not None:
            width = self.context.largest_width() if detail is None else detail.out_width
            end = self.context.add(graph, last.raw, width)
        elif detail is not None:
            end = conv_norm(graph, last.out, detail.out_width, 1, scopes.LATERAL)
        else:
            end = last.out
        return end if detail is None else detail.merged(graph, end, encoded.sides[-1])

    def build(self, num_classes: int, *, auxiliary: bool = False, training_form: bool = False) -> Network:
        """The network, newly initialised.

        `auxiliary`: include the auxiliary heads, which exist in training only. `training_form`: include the paths that
        re-parameterised convolutions have in training (`space.paths` folds them). Pruned networks have no training
        form: an identity path would tie channels that were pruned separately.

        Raises: UserError for fewer than one class.
        """
        from space.network import Network

        if num_classes < 1:
            raise UserError(f"num_classes: expected at least 1, got {num_classes}")
        graph = self.graph(num_classes, auxiliary=auxiliary)
        return Network(
            graph,
            widths(graph, self.channels),
            architecture=self,
            num_classes=num_classes,
            training_form=training_form and self.is_reparameterized,
            auxiliary_weights=tuple(each.weight for each in self.auxiliary) if auxiliary else (),
        )

    def without_channels(self) -> Architecture:
        """The architecture before pruning; equal to this one if it is not pruned."""
        return replace(self, channels={})

    def rows(self) -> dict[str, Stage | DecoderStep]:
        """The sequences of blocks by the scope of their layers, in the order of computation: `stage0`, `stage1`, ...,
        `detail0`, ..., `decoder.step0`, ...
        """
        sides = list({} if self.detail is None else self.detail.rows().items())
        rows: dict[str, Stage | DecoderStep] = {}
        for index, stage in enumerate(self.stages):
            rows[f"{scopes.STAGE}{index}"] = stage
            if index >= len(self.stages) - len(sides):
                rows |= [sides[index - len(self.stages)]]
        return rows | (dict(self.decoder.rows()) if self.decoder is not None else {})

    def with_rows(self, rows: Mapping[str, Stage | DecoderStep]) -> Architecture:
        """The architecture with other sequences of blocks under the same names; not for a pruned architecture."""
        encoder = {name: row for name, row in rows.items() if isinstance(row, Stage)}
        stages = tuple(encoder.pop(f"{scopes.STAGE}{index}") for index in range(len(self.stages)))
        detail = None if self.detail is None else replace(self.detail, parts=tuple(encoder.values()))
        steps = {name: row for name, row in rows.items() if isinstance(row, DecoderStep)}
        decoder = None if self.decoder is None else self.decoder.with_rows(steps)
        return replace(self, stages=stages, detail=detail, decoder=decoder)


@functools.lru_cache(maxsize=REMEMBERED)
def _graph(architecture: Architecture, num_classes: int, auxiliary: bool) -> Graph:
    return architecture._layers(num_classes, auxiliary)


def allows_image_pyramid(encoder: Encoder) -> bool:
    """Whether the levels of an image pyramid can share an encoder."""
    return encoder.stem.takes_image_pyramid and all(
        blocks.kind(stage.block).in_image_pyramids and stage.down == "block" for stage in encoder.stages
    )
