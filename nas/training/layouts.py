"""What the layers of well-known networks are called in others' files, beside their names here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from space import Architecture

Row = Mapping[str, str]
"""The layers of one block: ours, and the same one in the file."""
Kind = Literal["resnet", "mobilenet", "swiftnet", "erfnet", "ours"]
ERFNET = "encoder.initial_block.conv.weight"
ERFNET_PREFIXES = ("", "features.")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each layer of a network is in a file."""

    rows: tuple[Row, ...]
    """Block by block, in the order of computation."""
    heads: tuple[Row, ...] = ()
    """What hangs on the number of classes."""
    first: str = ""
    """The file's first convolution."""
    mean: tuple[float, ...] | None = None
    """What the file's network takes off values of 0..1; None where it reads images as ours do."""
    std: tuple[float, ...] | None = None
    pooled_norm: str = ""
    """The normalisation of the first convolution's output beside the pooled image."""
    void: bool = False
    """Whether the last of 20 classes in the public checkpoints is void."""


def block_of(layer: str) -> str:
    """The block of the encoder that a layer of ours is in, which is taken whole or not at all; elsewhere the layer."""
    found = re.match(r"stem\b|stage\d+\.\w+", layer)
    return layer if found is None else found[0]


def kind_of(tensors: Mapping[str, Tensor]) -> Kind | None:
    """Whose names those in a file are; None for unknown ones."""
    if "conv1.weight" in tensors and "layer1.0.conv1.weight" in tensors:
        return "resnet"
    if "backbone.conv1.weight" in tensors:
        return "swiftnet"
    if "features.0.0.weight" in tensors and any(name.startswith("features.1.conv.") for name in tensors):
        return "mobilenet"
    if any(f"{prefix}{ERFNET}" in tensors for prefix in ERFNET_PREFIXES):
        return "erfnet"
    return "ours" if any(name.startswith("stem.") for name in tensors) else None


def layout_of(
    tensors: Mapping[str, Tensor], architecture: Architecture, expected: Mapping[str, Tensor]
) -> Layout | None:
    """The layout that the names in a file are of; None for unknown ones. `expected` has the tensors of ours."""
    match kind_of(tensors):
        case "resnet":
            return Layout(rows=(*_resnet(tensors, architecture, ""),), first="conv1")
        case "swiftnet":
            return _swiftnet(tensors, architecture, expected)
        case "mobilenet":
            return Layout(rows=(*_mobilenet(architecture),), first="features.0.0")
        case "erfnet":
            return _erfnet(architecture, next(each for each in ERFNET_PREFIXES if f"{each}{ERFNET}" in tensors))
        case "ours":
            return _own(tensors, expected)
    return None


def _resnet(tensors: Mapping[str, Tensor], architecture: Architecture, prefix: str) -> Iterable[Row]:
    """torchvision's ResNet of basic blocks. In SwiftNet's pyramid each level has a normalisation of its own."""

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
        if stage.depth < blocks:  # what follows was trained behind another block
            yield {f"stage{index}.block{stage.depth}.1_3x3": f"{theirs}.{stage.depth}.conv1"}
            return


def _mobilenet(architecture: Architecture) -> Iterable[Row]:
    """torchvision's MobileNetV2: blocks are counted through all stages."""
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
    """Its authors': a ResNet, and units of normalisation and convolution. They read values of 0..255, or less where
    the file has an `img_scale`.
    """

    def unit(ours: str, theirs: str) -> Row:
        return {f"{ours}_norm": f"{theirs}.norm", ours: f"{theirs}.conv"}

    rows = [*_resnet(tensors, architecture, "backbone.")]
    taps = [int(found[1]) for name in expected if (found := re.fullmatch(r"decoder\.lateral(\d+)\.weight", name))]
    blends = [int(found[1]) for name in expected if (found := re.fullmatch(r"decoder\.blend(\d+)\.weight", name))]
    if "backbone.upsample_bottlenecks.0.weight" in tensors:
        coarsest = sum(
            re.fullmatch(r"backbone\.upsample_bottlenecks\.\d+\.weight", name) is not None for name in tensors
        )
        rows += [{f"decoder.lateral{tap}": f"backbone.upsample_bottlenecks.{coarsest - 1 - tap}"} for tap in taps]
        steps = "backbone.upsample_blends"
    else:
        count = sum(
            re.fullmatch(r"backbone\.upsample\.\d+\.bottleneck\.conv\.weight", name) is not None for name in tensors
        )
        rows += [unit(f"decoder.lateral{tap}", f"backbone.upsample.{count - 1 - tap}.bottleneck") for tap in taps]
        rows.append(unit("decoder.context.bottleneck", "backbone.spp.spp.spp_bn"))
        grids = getattr(architecture.context, "grids", ())
        rows += [unit(f"decoder.context.grid{grid}", f"backbone.spp.spp.spp{i}") for i, grid in enumerate(grids)]
        rows.append(unit("decoder.context.fuse", "backbone.spp.spp.spp_fuse"))
        steps = "backbone.upsample"
    ordered = enumerate(sorted(blends, reverse=True))
    rows += [unit(f"decoder.blend{stride}", f"{steps}.{index}.blend_conv") for index, stride in ordered]
    rows.append({"head.norm": "logits.norm"})
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    if "backbone.img_mean" in tensors and "backbone.img_std" in tensors:
        scales = tensors["backbone.img_scale"].flatten().tolist() if "backbone.img_scale" in tensors else [1.0]
        mean, std = (
            tuple(each * scale / 255 for each in tensors[f"backbone.{name}"].flatten().tolist() for scale in scales)
            for name in ("img_mean", "img_std")
        )
    heads = ({"head.logits": "logits.conv"},)
    return Layout(rows=tuple(rows), heads=heads, first="backbone.conv1", mean=mean, std=std, void=True)


def _erfnet(architecture: Architecture, prefix: str) -> Layout:
    """Its authors', who read values of 0..1 as they are. What was trained on ImageNet is the encoder alone."""
    names = {"1_3x1": "conv3x1_1", "1_1x3": "conv1x3_1", "1_norm": "bn1"}
    names |= {"2_3x1": "conv3x1_2", "2_1x3": "conv1x3_2", "2_norm": "bn2"}

    def block(ours: str, theirs: str) -> Row:
        return {f"{ours}.{here}": f"{theirs}.{there}" for here, there in names.items()}

    first = f"{prefix}encoder.initial_block"
    rows: list[Row] = [{"stem.conv": f"{first}.conv", "stem.norm": f"{first}.bn"}]
    number = 0
    for index, stage in enumerate(architecture.stages):
        layer = f"{prefix}encoder.layers.{number}"
        rows.append({f"stage{index}.down.conv": f"{layer}.conv", f"stage{index}.down.norm": f"{layer}.bn"})
        within = [(f"stage{index}.block{each}", number + 1 + each) for each in range(stage.depth)]
        rows += [block(ours, f"{prefix}encoder.layers.{place}") for ours, place in within]
        number += 1 + stage.depth
    number = 0
    for index, step in enumerate(getattr(architecture.decoder, "steps", ())):
        ours, layer = f"decoder.step{index}", f"decoder.layers.{number}"
        rows.append({f"{ours}.up": f"{layer}.conv", f"{ours}.up_norm": f"{layer}.bn"})
        rows += [block(f"{ours}.block{each}", f"decoder.layers.{number + 1 + each}") for each in range(step.depth)]
        number += 1 + step.depth
    return Layout(
        rows=tuple(rows),
        heads=({"head.logits": "decoder.output_conv"}, {"auxiliary0.logits": "encoder.output_conv"}),
        first=f"{first}.conv",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        pooled_norm=f"{first}.bn",
        void=True,
    )


def _own(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> Layout:
    """Ours. What the file has more of in a block, such as a normalisation, is one of its layers too."""
    layers = dict.fromkeys(name.rpartition(".")[0] for name in expected)
    heads = [layer for layer in layers if layer.startswith(("head", "auxiliary"))]
    blocks: dict[str, dict[str, str]] = {}
    for layer in layers:
        if layer not in heads:
            blocks.setdefault(block_of(layer), {})[layer] = layer
    for layer in dict.fromkeys(name.rpartition(".")[0] for name in tensors):
        if block_of(layer) in blocks:
            blocks[block_of(layer)][layer] = layer
    return Layout(
        rows=tuple(blocks.values()),
        heads=tuple({layer: layer} for layer in heads),
    )
