"""From an architecture's numbers to its graph of layers: stem, stages, fusions, context, decoder and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from space import blocks
from space.architecture import DeconvDecoder, LadderDecoder
from space.blocks import Output, Unit
from space.graph import Graph, Node, Pair

if TYPE_CHECKING:
    from space.architecture import Architecture, Auxiliary, DecoderStep, Head, SpatialPyramid, Stage, Stem

FULL_SIZE: Pair = (1, 1)


def assemble(architecture: Architecture, num_classes: int, *, auxiliary: bool = False) -> Graph:
    """The layers of `architecture` for `num_classes` logits, at the widths it was designed with.

    The graph's outputs are the logits at the input's size and, if asked for, one more per auxiliary head. Narrowing
    by `architecture.channels` is applied to the result by `space.channels`.
    """
    graph = Graph(
        activation=architecture.activation,
        align_corners=architecture.align_corners,
        levels=architecture.levels,
    )
    levels = [_encode(graph, architecture, level) for level in range(architecture.levels)]
    x = levels[0][-1].out
    decoder = architecture.decoder
    if decoder is None:
        pass
    elif decoder.kind == "deconv":
        x = _deconv(graph, architecture, x)
    elif decoder.kind == "cat":
        tap = levels[0][decoder.tap].out
        x = graph.cat([graph.resize(x, tap.stride), tap])
        x = graph.norm_act(graph.conv(x, decoder.width, 1, "decoder.conv"), "decoder.")
    else:
        x = _ladder(graph, architecture, levels)
    logits = _head(graph, x, architecture.head, num_classes, "head")
    graph.outputs.append(graph.resize(logits, FULL_SIZE))
    if auxiliary:
        for index, each in enumerate(architecture.auxiliary):
            logits = _auxiliary(graph, levels[0][each.stage].out, each, num_classes, f"auxiliary{index}")
            graph.outputs.append(graph.resize(logits, FULL_SIZE))
    graph.drop_unused()
    return graph


def _encode(graph: Graph, architecture: Architecture, level: int) -> list[Output]:
    """The encoder on one level of the image pyramid: each stage's output and what a ladder may tap."""
    graph.level = level
    image = graph.resize(graph.image, (2**level, 2**level), mode="bicubic")
    x = _stem(graph, image, architecture.stem, architecture.bias)
    outputs = []
    for index, stage in enumerate(architecture.stages):
        with graph.scope(f"stage{index}"):
            outputs.append(_stage(graph, x, stage, architecture.bias))
        x = outputs[-1].out
    return outputs


def _stem(graph: Graph, image: Node, stem: Stem, bias: bool) -> Node:
    with graph.scope("stem"):
        if stem.kind == "cat":
            return blocks.cat_downsampler(graph, image, stem.width, bias)
        x = image
        for index in range(stem.convolutions):
            x = graph.conv(x, stem.width, stem.kernel, f"conv{index}", step=2 if index == 0 else 1)
            x = graph.norm_act(x, f"conv{index}_")
        if stem.kind == "conv_pool":
            x = graph.max_pool(x, 3)
        if stem.image:
            # FPLNet activates before and after this normalisation: its channel counts leave no other reading.
            x = graph.act(graph.cat([x, graph.max_pool(image, 2)]), "image_first_act")
            x = graph.norm_act(x, "image_")
        return x


def _stage(graph: Graph, x: Node, stage: Stage, bias: bool) -> Output:
    add_block = getattr(blocks, stage.block)
    shallow = None
    if stage.down == "cat":
        with graph.scope("down"):
            x = shallow = blocks.cat_downsampler(graph, x, stage.width, bias)
    elif stage.down == "module":
        with graph.scope("down"):
            x = shallow = add_block(graph, x, _unit(stage, 0, bias, step=stage.stride)).out
    result = Output(out=x, before_activation=x)
    for index in range(stage.depth):
        opening = index == 0 and stage.down == "block"
        unit = _unit(stage, index, bias, step=stage.stride if opening else 1, opening=opening)
        with graph.scope(f"block{index}"):
            result = add_block(graph, result.out, unit)
    if stage.fuse == "none":
        return result
    assert shallow is not None, "a fusion needs the output of a downsampler"
    fused = graph.norm_act(_fuse(graph, shallow, result.out, stage.fuse), "fuse_")
    return Output(out=fused, before_activation=fused)


def _unit(stage: Stage | DecoderStep, index: int, bias: bool, *, step: int = 1, opening: bool = False) -> Unit:
    """Block `index` of a stage; pyramidal blocks take all rates at once, the others one after the other."""
    rates = stage.rates if stage.block in ("fpl", "esp") else (stage.rates[index % len(stage.rates)],)
    return Unit(
        width=stage.width,
        rates=rates,
        factorization=stage.factorization,
        step=step,
        opening=opening,
        bias=bias,
        dropout=stage.dropout,
        expansion=stage.expansion,
        pairwise_fusion=stage.pairwise_fusion,
    )


def _fuse(graph: Graph, shallow: Node, deep: Node, kind: str) -> Node:
    """FPLNet's Table VIII: which of shallow features, deep features and the image are joined at a stage's end."""
    parts = {
        "add": lambda: [graph.add(deep, shallow)],
        "concat": lambda: [deep, shallow],
        "image": lambda: [deep],
        "image_add": lambda: [graph.add(deep, shallow)],
        "image_concat": lambda: [deep, shallow],
        "fir": lambda: [graph.add(shallow, deep), deep],
    }[kind]()
    if kind == "fir" or kind.startswith("image"):
        parts.append(_image_at(graph, deep.stride))
    return parts[0] if len(parts) == 1 else graph.cat(parts)


def _image_at(graph: Graph, stride: Pair) -> Node:
    """The input image average-pooled to a stride (ESPNet's and FPLNet's image insertion)."""
    image = graph.image
    while image.stride != stride:
        image = graph.average_pool(image)
    return image


def _deconv(graph: Graph, architecture: Architecture, x: Node) -> Node:
    """ERFNet's and FPLNet's decoder: transposed convolutions, each followed by a few encoder blocks."""
    decoder = architecture.decoder
    assert isinstance(decoder, DeconvDecoder)
    with graph.scope("decoder"):
        if decoder.projection:
            x = graph.conv(x, decoder.projection, 1, "projection")
        for index, step in enumerate(decoder.steps):
            with graph.scope(f"step{index}"):
                x = graph.norm_act(graph.deconv(x, step.width, 3, "up"), "up_")
                for block in range(step.depth):
                    with graph.scope(f"block{block}"):
                        x = getattr(blocks, step.block)(graph, x, _unit(step, block, architecture.bias)).out
    return x


def _ladder(graph: Graph, architecture: Architecture, levels: list[list[Output]]) -> Node:
    """SwiftNet's decoder: from the coarsest tap up, each step adds a lateral and blends with a 3x3 unit.

    With an image pyramid the laterals are plain 1x1 convolutions shared by its levels, and taps of equal stride from
    different levels are summed ("interleaved pyramidal fusion").
    """
    decoder = architecture.decoder
    assert isinstance(decoder, LadderDecoder)
    stages = list(architecture.tap_strides.values())
    sums: dict[int, list[Node]] = {}
    with graph.scope("decoder"):
        for outputs in levels:
            for position, stage in enumerate(stages):
                tap = outputs[stage].out if decoder.taps == "relu" else outputs[stage].before_activation
                if architecture.levels > 1:
                    lateral = graph.conv(tap, decoder.width, 1, f"lateral{position}")
                elif position == len(stages) - 1 and architecture.context is not None:
                    lateral = _spatial_pyramid(graph, tap, architecture.context, decoder.width)
                else:
                    lateral = _preactivated(graph, tap, decoder.width, 1, f"lateral{position}")
                sums.setdefault(tap.stride[0], []).append(lateral)
        strides = sorted(sums, reverse=True)
        x = _total(graph, sums[strides[0]])
        for stride in strides[1:]:
            x = _total(graph, [graph.resize(x, (stride, stride)), *sums[stride]])
            x = _preactivated(graph, x, decoder.width, 3, f"blend{stride}")
    return x


def _total(graph: Graph, terms: list[Node]) -> Node:
    return terms[0] if len(terms) == 1 else graph.add(*terms)


def _preactivated(graph: Graph, x: Node, width: int, kernel: int, name: str) -> Node:
    """Normalise, activate, convolve (SwiftNet's unit). Outside the encoder, so one for all pyramid levels."""
    return graph.conv(graph.norm_act(x, f"{name}_", per_level=False), width, kernel, name)


def _spatial_pyramid(graph: Graph, x: Node, context: SpatialPyramid, width: int) -> Node:
    """SwiftNet's spatial pyramid pooling.

    The released code runs its batch norms with momentum 0.005; ours keep 0.1, which a short training can settle.
    """
    with graph.scope("context"):
        x = _preactivated(graph, x, context.bottleneck, 1, "bottleneck")
        parts = [x]
        for grid in context.grids:
            level = _preactivated(graph, graph.grid_pool(x, grid), context.level_width, 1, f"grid{grid}")
            parts.append(graph.resize(level, x.stride))
        return _preactivated(graph, graph.cat(parts), width, 1, "fuse")


def _head(graph: Graph, x: Node, head: Head, num_classes: int, name: str) -> Node:
    with graph.scope(name):
        if head.kind == "sep":
            x = _separable(graph, x, head.width)
        if head.kind == "preact":
            x = graph.norm_act(x, per_level=False)
        if head.kind == "deconv2":
            return graph.deconv(x, num_classes, 2, "logits", fixed=True)
        return graph.conv(x, num_classes, 1, "logits", bias=head.kind != "linear_nobias", fixed=True)


def _auxiliary(graph: Graph, x: Node, auxiliary: Auxiliary, num_classes: int, name: str) -> Node:
    with graph.scope(name):
        if auxiliary.width:
            x = _separable(graph, x, auxiliary.width)
        return graph.conv(x, num_classes, 1, "logits", bias=True, fixed=True)


def _separable(graph: Graph, x: Node, width: int) -> Node:
    return graph.norm_act(graph.conv(graph.depthwise(x, "depthwise"), width, 1, "pointwise"))
