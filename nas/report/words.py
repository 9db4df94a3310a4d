"""An architecture in words, part by part, for people who do not read its YAML. Each part knows its own."""

from __future__ import annotations

from space import Architecture


def describe(architecture: Architecture) -> dict[str, str]:
    """The parts of `architecture` from image to logits, name to description."""
    parts = {"Stem": architecture.stem.words()}
    for number, stage in enumerate(architecture.stages, 1):
        parts[f"Stage {number}"] = stage.words()
    if architecture.detail is not None:
        parts["Detail branch"] = architecture.detail.words()
    if architecture.context is not None:
        parts["Context"] = architecture.context.words()
    decoder = architecture.decoder
    parts["Decoder"] = "none; logits are upsampled" if decoder is None else decoder.words()
    parts["Head"] = architecture.head.words()
    parts["Activation"] = architecture.activation
    if architecture.rep:
        parts["Convolutions"] = "3x3, each trained as a sum of paths and run as one"
    if architecture.label_stride > 1:
        side = architecture.label_stride
        parts["Labels"] = f"at 1/{side} of the image's size, each for {side}x{side} pixels"
    if architecture.levels > 1:
        parts["Image pyramid"] = f"{architecture.levels} levels"
    if architecture.channels:
        left = sum(architecture.channels.values())
        parts["Pruned"] = f"{len(architecture.channels)} groups of channels were cut; {left} channels are left in them"
    return parts
