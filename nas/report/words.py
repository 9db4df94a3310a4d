"""An architecture in words, part by part, for people who do not read its YAML."""

from __future__ import annotations

from nas.host.words import counted
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
        parts["Convolutions"] = "3x3, each trained as several parallel paths and run as one convolution"
    if architecture.label_stride > 1:
        side = architecture.label_stride
        parts["Labels"] = f"at 1/{side} of the image size: one label for {side}x{side} pixels"
    if architecture.levels > 1:
        parts["Image pyramid"] = f"{architecture.levels} levels"
    if architecture.channels:
        left = sum(architecture.channels.values())
        groups = counted(len(architecture.channels), "group")
        parts["Pruned"] = f"{groups} of channels narrowed, with {left} channels left in all"
    return parts
