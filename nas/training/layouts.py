"""The names of layers in weight files of well-known networks, matched with our own names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from space import Architecture, scopes

Row = Mapping[str, str]
"""The layers of one block: our name of a layer -> its name in the file."""
Kind = Literal["resnet", "mobilenet", "swiftnet", "erfnet", "ours"]
ERFNET = "encoder.initial_block.conv.weight"
ERFNET_PREFIXES = ("", "features.")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The place of each layer of a network in a file."""

    rows: tuple[Row, ...]
    """Layers block by block, in the order of computation."""
    heads: tuple[tuple[Row, ...], ...] = ()
    """For each head, its inner layers as one block, then its last layer, which depends on the number of classes."""
    first: str = ""
    """The file's first convolution."""
    mean: tuple[float, ...] | None = None
    """What the file's network subtracts from values in 0..1; None if it reads images as ours do."""
    std: tuple[float, ...] | None = None
    """What it divides them by afterwards; None likewise."""
    pooled_norm: str = ""
    """The batch norm over the first convolution's output joined with the pooled image, if there is one."""
    void: bool = False
    """Whether public checkpoints have 20 classes, the last of them void."""


def kind_of(tensors: Mapping[str, Tensor]) -> Kind | None:
    """The kind of network that the names in a file belong to; None for unknown names."""
    if "conv1.weight" in tensors and "layer1.0.conv1.weight" in tensors:
        return "resnet"
    if "backbone.conv1.weight" in tensors:
        return "swiftnet"
    if "features.0.0.weight" in tensors and any(name.startswith("features.1.conv.") for name in tensors):
        return "mobilenet"
    if any(f"{prefix}{ERFNET}" in tensors for prefix in ERFNET_PREFIXES):
        return "erfnet"
    return "ours" if any(name.startswith(f"{scopes.STEM}.") for name in tensors) else None


def layout_of(
    tensors: Mapping[str, Tensor], architecture: Architecture, expected: Mapping[str, Tensor]
) -> Layout | None:
    """The layout that the names in a file follow; None for unknown names. `expected`: the tensors of our network."""
    match kind_of(tensors):
        case "resnet":
            return Layout(rows=(*_resnet(tensors, architecture, ""),), first="conv1")
        case "swiftnet":
            return _swiftnet(tensors, architecture, expected)
        case "mobilenet":
            return Layout(rows=(*_mobilenet(architecture),), first="features.0.0")
        case "erfnet":
            return _erfnet(tensors, architecture, expected)
        case "ours":
            return _own(tensors, expected)
    return None


def _resnet(tensors: Mapping[str, Tensor], architecture: Architecture, prefix: str) -> Iterable[Row]:
    """torchvision's ResNet of basic blocks. In SwiftNet's pyramid each level has batch norms of its own."""

    def norm(ours: str, theirs: str) -> Row:
        if architecture.levels == 1:
            return {ours: theirs if f"{theirs}.weight" in tensors else f"{theirs}.0"}
        own = (f"{theirs}.{level}" for level in range(architecture.levels))
        each = (name if f"{name}.weight" in tensors else theirs for name in own)
        return {f"{ours}_level{level}": name for level, name in enumerate(each)}

    yield {"stem.conv0": f"{prefix}conv1", **norm("stem.conv0_norm", f"{prefix}bn1")}
    for index, stage in enumerate(architecture.stages):
        theirs = f"{prefix}layer{index + 1}"
        blocks = len({name.split(".")[prefix.count(".") + 1] for name in tensors if name.startswith(f"{theirs}.")})
        for block in range(stage.depth):
            ours, other = f"stage{index}.block{block}", f"{theirs}.{block}"
            projected = f"{other}.downsample.0.weight" in tensors
            yield {
                f"{ours}.1_3x3": f"{other}.conv1",
                **norm(f"{ours}.1_norm", f"{other}.bn1"),
                f"{ours}.2_3x3": f"{other}.conv2",
                **norm(f"{ours}.2_norm", f"{other}.bn2"),
                **({f"{ours}.projection": f"{other}.downsample.0"} if projected else {}),
                **({f"{ours}.projection_norm": f"{other}.downsample.1"} if projected else {}),
            }
        if stage.depth < blocks:  # the layers that follow were trained behind a block that ours lacks
            yield {f"stage{index}.block{stage.depth}.1_3x3": f"{theirs}.{stage.depth}.conv1"}
            return
    count = len(architecture.stages)
    if f"{prefix}layer{count + 1}.0.conv1.weight" in tensors:
        yield {f"stage{count}.block0.1_3x3": f"{prefix}layer{count + 1}.0.conv1"}


def _mobilenet(architecture: Architecture) -> Iterable[Row]:
    """torchvision's MobileNetV2, which numbers blocks across all stages."""
    yield {"stem.conv0": "features.0.0", "stem.conv0_norm": "features.0.1"}
    number = 0
    for index, stage in enumerate(architecture.stages):
        for block in range(stage.depth):
            number += 1
            ours, theirs = f"stage{index}.block{block}", f"features.{number}.conv"
            wide = stage.expansion > 1
            widened = {f"{ours}.widen": f"{theirs}.0.0", f"{ours}.widen_norm": f"{theirs}.0.1"} if wide else {}
            behind = int(wide)
            yield {
                **widened,
                f"{ours}.depthwise": f"{theirs}.{behind}.0",
                f"{ours}.depthwise_norm": f"{theirs}.{behind}.1",
                f"{ours}.project": f"{theirs}.{behind + 1}",
                f"{ours}.project_norm": f"{theirs}.{behind + 2}",
            }


def _swiftnet(tensors: Mapping[str, Tensor], architecture: Architecture, expected: Mapping[str, Tensor]) -> Layout:
    """The layout of SwiftNet's authors: a ResNet, and units of batch norm and convolution. They read values of 0..255,
    or scaled down if the file has an `img_scale`.
    """

    def unit(ours: str, theirs: str) -> dict[str, str]:
        return {f"{ours}_norm": f"{theirs}.norm", ours: f"{theirs}.conv"}

    def numbers(pattern: str, names: Mapping[str, Tensor]) -> list[int]:
        """The numbers in the names that match a pattern."""
        return [int(found[1]) for name in names if (found := re.fullmatch(pattern, name))]

    rows = [*_resnet(tensors, architecture, "backbone.")]
    taps = numbers(r"decoder\.lateral(\d+)\.weight", expected)
    blends = sorted(numbers(r"decoder\.blend(\d+)\.weight", expected), reverse=True)
    if "backbone.upsample_bottlenecks.0.weight" in tensors:
        coarsest = max(numbers(r"backbone\.upsample_bottlenecks\.(\d+)\.weight", tensors))
        rows += [{f"decoder.lateral{tap}": f"backbone.upsample_bottlenecks.{coarsest - tap}"} for tap in taps]
        steps = "backbone.upsample_blends"
    else:
        count = len(numbers(r"backbone\.upsample\.(\d+)\.bottleneck\.conv\.weight", tensors))
        rows += [unit(f"decoder.lateral{tap}", f"backbone.upsample.{count - 1 - tap}.bottleneck") for tap in taps]
        context = unit("decoder.context.bottleneck", "backbone.spp.spp.spp_bn")
        for index, grid in enumerate(numbers(r"decoder\.context\.grid(\d+)\.weight", expected)):
            context |= unit(f"decoder.context.grid{grid}", f"backbone.spp.spp.spp{index}")
        rows.append(context | unit("decoder.context.fuse", "backbone.spp.spp.spp_fuse"))
        steps = "backbone.upsample"
    if f"{steps}.{len(blends)}.blend_conv.conv.weight" in tensors:  # the file's begin at a coarser stride
        rows.append({f"decoder.blend{2 * max(blends, default=0)}": f"{steps}.0.blend_conv.conv"})
    rows += [unit(f"decoder.blend{stride}", f"{steps}.{index}.blend_conv") for index, stride in enumerate(blends)]
    rows.append({"head.norm": "logits.norm"})
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    if "backbone.img_mean" in tensors and "backbone.img_std" in tensors:
        scales = tensors["backbone.img_scale"].flatten().tolist() if "backbone.img_scale" in tensors else [1.0]
        mean, std = (
            tuple(each * scale / 255 for each in tensors[f"backbone.{name}"].flatten().tolist() for scale in scales)
            for name in ("img_mean", "img_std")
        )
    heads = (({"head.logits": "logits.conv"},),)
    return Layout(rows=tuple(rows), heads=heads, first="backbone.conv1", mean=mean, std=std, void=True)


def _erfnet(tensors: Mapping[str, Tensor], architecture: Architecture, expected: Mapping[str, Tensor]) -> Layout:
    """The layout of ERFNet's authors, who read values of 0..1 as they are. Files from ImageNet have no decoder."""
    names = {"1_3x1": "conv3x1_1", "1_1x3": "conv1x3_1", "1_norm": "bn1"}
    names |= {"2_3x1": "conv3x1_2", "2_1x3": "conv1x3_2", "2_norm": "bn2"}

    def blocks(ours: str, theirs: str, first: int, depth: int) -> Iterable[Row]:
        for index in range(depth):
            block, layer = f"{ours}.block{index}", f"{theirs}.{first + index}"
            yield {f"{block}.{here}": f"{layer}.{there}" for here, there in names.items()}

    def is_longer(theirs: str, count: int) -> bool:
        """Whether the file has more than `count` layers, behind which everything that follows was trained."""
        return any(name.startswith(f"{theirs}.{count}.") for name in tensors)

    prefix = next(each for each in ERFNET_PREFIXES if f"{each}{ERFNET}" in tensors)
    first, layers = f"{prefix}encoder.initial_block", f"{prefix}encoder.layers"
    rows: list[Row] = [{"stem.conv": f"{first}.conv", "stem.norm": f"{first}.bn"}]
    number = 0
    for index, stage in enumerate(architecture.stages):
        down, layer = f"stage{index}.down", f"{layers}.{number}"
        rows.append({f"{down}.conv": f"{layer}.conv", f"{down}.norm": f"{layer}.bn"})
        rows += blocks(f"stage{index}", layers, number + 1, stage.depth)
        number += 1 + stage.depth
    if is_longer(layers, number):
        rows.append({f"stage{len(architecture.stages) - 1}.block{architecture.stages[-1].depth}": f"{layers}.{number}"})
    number, layers = 0, "decoder.layers"
    steps = {} if architecture.decoder is None else architecture.decoder.rows()
    for ours, step in steps.items():
        rows.append({f"{ours}.up": f"{layers}.{number}.conv", f"{ours}.up_norm": f"{layers}.{number}.bn"})
        rows += blocks(ours, layers, number + 1, step.depth)
        number += 1 + step.depth
    if is_longer(layers, number):
        rows.append({f"{ours}.block{step.depth}" if steps else "decoder.step0": f"{layers}.{number}"})
    heads = {"head.logits": "decoder.output_conv", "auxiliary0.logits": "encoder.output_conv"}
    return Layout(
        rows=tuple(rows),
        heads=tuple(({ours: theirs},) for ours, theirs in heads.items() if f"{ours}.weight" in expected),
        first=f"{first}.conv",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        pooled_norm=f"{first}.bn",
        void=True,
    )


def _own(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Layout:
    """Our own layout. Layers, blocks and branches that only the file has are in the rows too, at their place in the
    order of computation. The levels of an image pyramid start from the single batch norm of a file without levels.
    """
    ours, theirs = (dict.fromkeys(name.rpartition(".")[0] for name in names) for names in (expected, tensors))
    blocks: dict[str, dict[str, str]] = {}
    places: dict[str, tuple[int, ...]] = {}
    start, other_start = scopes.branch_start(ours), scopes.branch_start(theirs)
    for layer in ours:
        block, shared = scopes.block_of(layer), re.sub(r"_level\d+$", "", layer)
        blocks.setdefault(block, {})[layer] = shared if shared in theirs else layer
        places[block] = (*scopes.place_of(block, start), 1)
    inside = set(scopes.PARTS) - set(scopes.HEADS)
    taken = {name for row in blocks.values() for name in row.values()}
    for layer in theirs:
        block = scopes.block_of(layer)
        stage, *within = scopes.place_of(block, other_start)
        if block in blocks and (stage, *within, 1) != places[block]:
            blocks[block][f"{block} beside stage{stage}"] = layer  # its branch begins at another stage
        elif layer not in taken and (block in blocks or scopes.part_of(block) in inside):
            blocks.setdefault(block, {})[layer] = layer
            places.setdefault(block, (stage, *within, 0))  # before ours if names do not tell the order
    ordered = [(name, blocks[name]) for name in sorted(blocks, key=places.__getitem__)]
    return Layout(
        rows=tuple(row for name, row in ordered if scopes.part_of(name) not in scopes.HEADS),
        heads=tuple(_head(row) for name, row in ordered if scopes.part_of(name) in scopes.HEADS),
    )


def _head(row: Row) -> tuple[Row, ...]:
    """The inner layers of a head as a block, and its last layer, which depends on the number of classes, by itself."""
    inside = {ours: theirs for ours, theirs in row.items() if not ours.endswith(".logits")}
    last = {ours: theirs for ours, theirs in row.items() if ours not in inside}
    return (inside, last) if inside else (last,)
