"""An architecture in words, part by part, for people who do not read its YAML."""

from __future__ import annotations

from space import Architecture
from space.architecture import BRANCHES, CatDecoder, DeconvDecoder, LadderDecoder, Stage, Stem

BLOCKS = {
    "nonbt": "non-bottleneck residual",
    "fpl": "factorized pyramid (FPL)",
    "esp": "efficient spatial pyramid (ESP)",
    "sep": "separable bottleneck",
    "inverted": "inverted residual",
}
OPENINGS = {
    "cat": "opened by a strided convolution beside a max pool",
    "module": "opened by a strided block",
    "block": "its first block sets the stride",
}
HEADS = {
    "linear": "1x1 convolution",
    "linear_nobias": "1x1 convolution without bias",
    "sep": "separable convolution, then 1x1",
    "preact": "normalise, activate, 1x1 convolution",
    "deconv2": "transposed 2x2 convolution to full size",
}
FACTORIZATIONS = {
    "none": "3x3 convolutions",
    "composite": "dilated convolutions split into 3x1 and 1x3",
    "all": "every convolution split into 3x1 and 1x3",
}


def describe(architecture: Architecture) -> dict[str, str]:
    """The parts of `architecture` from image to logits, name to description."""
    parts = {"Stem": _stem(architecture.stem)}
    for number, stage in enumerate(architecture.stages, 1):
        parts[f"Stage {number}"] = _stage(stage)
    if architecture.context is not None:
        grids = ", ".join(str(grid) for grid in architecture.context.grids)
        parts["Context"] = f"spatial pyramid pooling over {grids} rows, {architecture.context.bottleneck} channels"
    parts["Decoder"] = _decoder(architecture.decoder)
    width = f", {architecture.head.width} channels" if architecture.head.width else ""
    parts["Head"] = HEADS[architecture.head.kind] + width
    parts["Activation"] = architecture.activation
    if architecture.levels > 1:
        parts["Image pyramid"] = f"{architecture.levels} levels"
    if architecture.channels:
        left = sum(architecture.channels.values())
        parts["Pruned"] = f"{len(architecture.channels)} groups of channels were cut; {left} channels are left in them"
    return parts


def _stem(stem: Stem) -> str:
    kernel = f"{stem.kernel}x{stem.kernel}"
    kinds = {
        "cat": "3x3 strided convolution beside a max pool",
        "convs": f"{_count(stem.convolutions, f'{kernel} convolution')}, the first strided",
        "conv_pool": f"{_count(stem.convolutions, f'{kernel} convolution')}, then a max pool",
    }
    image = ", joined by the half-size image" if stem.image else ""
    return f"{kinds[stem.kind]}; {stem.width} channels at stride {stem.stride}{image}"


def _stage(stage: Stage) -> str:
    rates = "-".join(str(rate) for rate in stage.rates)
    if stage.block in BRANCHES:
        dilation = f"branches dilated {rates}"
    else:
        dilation = "undilated" if set(stage.rates) == {1} else f"dilated {rates} in turn"
    words = [
        f"{_count(stage.depth, f'{BLOCKS[stage.block]} block')} of {stage.width} channels",
        f"stride {stage.stride}",
        OPENINGS[stage.down],
        dilation,
    ]
    if stage.block in ("nonbt", "fpl"):
        words.append(FACTORIZATIONS[stage.factorization])
    if stage.block in ("sep", "inverted"):
        words.append(f"expansion {stage.expansion}")
    if stage.fuse != "none":
        words.append(f"fusion {stage.fuse}")
    if stage.dropout:
        words.append(f"dropout {stage.dropout:g}")
    return "; ".join(words)


def _decoder(decoder: DeconvDecoder | CatDecoder | LadderDecoder | None) -> str:
    if decoder is None:
        return "none; logits are upsampled"
    if isinstance(decoder, CatDecoder):
        return f"joined with stage {decoder.tap + 1}, 1x1 convolution to {decoder.width} channels"
    if isinstance(decoder, LadderDecoder):
        return f"ladder of {decoder.width} channels with lateral connections to every stride"
    projection = f"1x1 convolution to {decoder.projection} channels, then " if decoder.projection else ""
    steps = "; ".join(
        f"{step.width} channels" + (f" with {_count(step.depth, f'{BLOCKS[step.block]} block')}" if step.depth else "")
        for step in decoder.steps
    )
    return f"{projection}transposed convolutions to half size: {steps}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
