"""The same architecture, narrower or wider: one factor on every width."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace

from space.architecture import (
    WIDEST,
    Architecture,
    CatDecoder,
    DeconvDecoder,
    LadderDecoder,
    Stage,
)
from space.errors import ArchitectureError
from space.work import BLOCK

ROOM = 8  # multiples that rounding may add to a width
STEP = 4  # fpl joins four branches, sep divides by its expansion


def scale_width(architecture: Architecture, factor: float, *, multiple: int = STEP) -> Architecture:
    """Every width times `factor`, rounded to a multiple and kept valid; class count and depth stay.

    A `cat` downsampler keeps at least `multiple` channels of its own, so very small factors saturate; so do very large
    ones, where the widest layer would have more channels than an architecture may.

    Raises: ArchitectureError for a factor that is not positive and finite, or a pruned architecture.
    """
    if not 0 < factor < math.inf:
        raise ArchitectureError(f"factor: expected a positive number, got {factor}")
    if multiple < 1:
        raise ArchitectureError(f"multiple: expected at least 1, got {multiple}")
    if architecture.channels:
        raise ArchitectureError("cannot scale a pruned architecture; scale what it was cut from and prune again")

    factor = min(factor, (WIDEST - ROOM * multiple) / _largest_width(architecture))

    def scaled(width: int, least: int = 1) -> int:
        if width == 0:
            return 0
        target = max(width * factor, least)
        return max(-(-least // multiple) * multiple, round(target / multiple) * multiple, multiple)

    stem = replace(architecture.stem, width=scaled(architecture.stem.width, 4))
    stages: list[Stage] = []
    incoming = stem.out_width
    for stage in architecture.stages:
        unit = {"sep": stage.expansion, "fpl": 4}.get(stage.block, 1)
        least = incoming + 1 if stage.down == "cat" else 8 if stage.block == "esp" else 1
        width = scaled(stage.width, least)
        stages.append(replace(stage, width=-(-width // unit) * unit))
        incoming = stages[-1].out_width
    context = architecture.context
    if context is not None:
        bottleneck = scaled(context.bottleneck)
        context = replace(context, bottleneck=bottleneck, level_width=max(1, round(context.level_width * factor)))
    head = replace(architecture.head, width=scaled(architecture.head.width))
    return replace(
        architecture,
        stem=stem,
        stages=tuple(stages),
        context=context,
        decoder=_scaled_decoder(architecture, scaled),
        head=head,
    )


def wider_parts(architecture: Architecture) -> list[Architecture]:
    """The same architecture with one part wider: each stage, decoder and separable head, brought to its next multiple
    of STEP and to its next whole block of channels.

    Raises: ArchitectureError for a pruned architecture.
    """
    if architecture.channels:
        raise ArchitectureError("cannot widen a pruned architecture; widen what it was cut from and prune again")
    found = []
    for multiple in (STEP, BLOCK):
        for index in range(len(architecture.stages)):
            with contextlib.suppress(ArchitectureError):  # a later stage that has to be wider still, or none is wider
                found.append(_with_wider_stage(architecture, index, multiple))
        with contextlib.suppress(ArchitectureError):
            found.append(replace(architecture, decoder=_wider_decoder(architecture, multiple)))
        if architecture.head.width:
            head = replace(architecture.head, width=_next(architecture.head.width, multiple))
            found.append(replace(architecture, head=head))
    return [each for each in found if each != architecture]


def _with_wider_stage(architecture: Architecture, index: int, multiple: int) -> Architecture:
    stage = architecture.stages[index]
    unit = {"sep": stage.expansion, "fpl": 4}.get(stage.block, 1)
    wider = replace(stage, width=_next(stage.width, math.lcm(multiple, unit)))
    return replace(architecture, stages=(*architecture.stages[:index], wider, *architecture.stages[index + 1 :]))


def _wider_decoder(architecture: Architecture, multiple: int) -> DeconvDecoder | CatDecoder | LadderDecoder | None:
    decoder = architecture.decoder
    if isinstance(decoder, DeconvDecoder):
        return replace(
            decoder,
            steps=tuple(replace(step, width=_next(step.width, math.lcm(multiple, 4))) for step in decoder.steps),
        )
    if isinstance(decoder, (CatDecoder, LadderDecoder)):
        return replace(decoder, width=_next(decoder.width, multiple))
    return None


def _next(width: int, multiple: int) -> int:
    return (width // multiple + 1) * multiple


def _largest_width(architecture: Architecture) -> int:
    widths = [architecture.stem.width, *(stage.width for stage in architecture.stages), architecture.head.width]
    decoder, context = architecture.decoder, architecture.context
    if isinstance(decoder, DeconvDecoder):
        widths += [decoder.projection, *(step.width for step in decoder.steps)]
    elif decoder is not None:
        widths.append(decoder.width)
    if context is not None:
        widths += [context.bottleneck, context.level_width]
    return max(widths)


def _scaled_decoder(
    architecture: Architecture, scaled: Callable[[int], int]
) -> DeconvDecoder | CatDecoder | LadderDecoder | None:
    decoder = architecture.decoder
    if isinstance(decoder, DeconvDecoder):
        steps = tuple(replace(step, width=-(-scaled(step.width) // 4) * 4) for step in decoder.steps)
        return replace(decoder, projection=scaled(decoder.projection), steps=steps)
    if isinstance(decoder, (CatDecoder, LadderDecoder)):
        return replace(decoder, width=scaled(decoder.width))
    return None
