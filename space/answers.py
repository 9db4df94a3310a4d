"""What each question would have to be answered for a given architecture."""

from __future__ import annotations

from space.architecture import Architecture, CatDecoder, DeconvDecoder
from space.axes import Choice, text_of


def answers_of(architecture: Architecture) -> dict[str, Choice]:
    """Answers by the names of their questions; more names than are asked."""
    stem, first = architecture.stem, architecture.stages[0]
    values: dict[str, Choice] = {
        "stem.kind": stem.kind,
        "stem.width": stem.width,
        "stem.kernel": stem.kernel,
        "stem.convolutions": stem.convolutions,
        "stem.image": stem.image,
        "stages": len(architecture.stages),
        "block": first.block,
        "down": first.down,
        "fuse": first.fuse,
        "factorization": first.factorization,
        "pairwise_fusion": first.pairwise_fusion,
        "levels": architecture.levels,
        "context": "none" if architecture.context is None else "spp",
        "head": architecture.head.kind,
        "head.width": architecture.head.width,
        "activation": architecture.activation,
        "norm_epsilon": architecture.norm_epsilon,
        "bias": architecture.bias,
        "align_corners": architecture.align_corners,
        "auxiliary": "none",
    }
    for index, stage in enumerate(architecture.stages):
        for name in ("width", "depth", "stride", "dropout", "expansion"):
            values[f"stage{index}.{name}"] = getattr(stage, name)
        values[f"stage{index}.rates"] = text_of(stage.rates)
    if architecture.context is not None:
        values["context.bottleneck"] = architecture.context.bottleneck
        values["context.grids"] = text_of(architecture.context.grids)
    for auxiliary in architecture.auxiliary[:1]:
        values["auxiliary"] = "sep" if auxiliary.width else "linear"
        values["auxiliary.stage"] = auxiliary.stage
    return values | _decoder_values(architecture)


def _decoder_values(architecture: Architecture) -> dict[str, Choice]:
    decoder = architecture.decoder
    if decoder is None:
        return {"decoder": "none"}
    if isinstance(decoder, DeconvDecoder):
        steps: dict[str, Choice] = {f"decoder.step{i}.width": step.width for i, step in enumerate(decoder.steps)}
        depth = decoder.steps[0].depth
        return {"decoder": "deconv", "decoder.projection": decoder.projection, "decoder.depth": depth, **steps}
    if isinstance(decoder, CatDecoder):
        return {"decoder": "cat", "decoder.tap": decoder.tap, "decoder.width": decoder.width}
    return {"decoder": "ladder", "decoder.taps": decoder.taps, "decoder.width": decoder.width}
