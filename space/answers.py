"""The answers to the questions of the space that describe a given architecture."""

from __future__ import annotations

from space import detail
from space.architecture import Architecture
from space.choices import Choice


def answers_of(architecture: Architecture) -> dict[str, Choice]:
    """Answers by question name, including questions that would not be asked for this architecture."""
    first = architecture.stages[0]
    values: dict[str, Choice] = {
        **architecture.stem.answers(),
        "stages": len(architecture.stages),
        "block": first.block,
        "down": first.down,
        "fuse": first.fuse,
        "factorization": first.factorization,
        "pairwise_fusion": first.pairwise_fusion,
        "levels": architecture.levels,
        "context": "none",
        **architecture.head.answers(),
        "activation": architecture.activation,
        "norm_epsilon": architecture.norm_epsilon,
        "bias": architecture.bias,
        "align_corners": architecture.align_corners,
        "norm_momentum": architecture.norm_momentum,
        "head_norm_epsilon": architecture.head_norm_epsilon,
        "head_norm_momentum": architecture.head_norm_momentum,
        "rep": architecture.rep,
        "label_stride": architecture.label_stride,
        "auxiliary": "none",
        "decoder": "none" if architecture.decoder is None else architecture.decoder.kind,
        "detail": "none",
    }
    for index, stage in enumerate(architecture.stages):
        values |= stage.answers(f"stage{index}")
    if architecture.context is not None:
        values |= architecture.context.answers()
    for auxiliary in architecture.auxiliary[:1]:
        values |= auxiliary.answers()
    if architecture.decoder is not None:
        values |= architecture.decoder.answers()
    if (branch := architecture.detail) is not None:
        values |= branch.answers(architecture.stages, architecture.encoder.strides[branch.start])
        values["stages"] = len(architecture.stages) - detail.has_end(architecture.stages)
    return values
