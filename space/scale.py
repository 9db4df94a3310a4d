"""The same architecture, narrower or wider: one factor on every width, or single parts."""

from __future__ import annotations

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


def parts(architecture: Architecture) -> int:
    """How many parts have a width of their own: stages, a decoder, a separable head; numbered in this order."""
    return len(architecture.stages) + (architecture.decoder is not None) + bool(architecture.head.width)


def notches(architecture: Architecture, part: int, *, vector: int) -> tuple[int, ...]:
    """By how many notches a part's width is worth changing: one down, none, one up, and up to the next two whole
    multiples of `vector`, the channels that the hardware computes with at a time. A notch is the smallest change:
    `STEP` channels, or the least multiple of it that the part allows.
    """
    width, notch = _width_and_notch(architecture, part)
    blocks = (vector * (width // vector + count) for count in (1, 2))
    return tuple(sorted({-1, 0, 1, *(math.ceil((whole - width) / notch) for whole in blocks)}))


def with_part(architecture: Architecture, part: int, count: int) -> Architecture:
    """One part's width changed by a number of notches; all other widths stay.

    Raises: ArchitectureError where the layers around it forbid that, and for a pruned architecture.
    """
    if architecture.channels:
        raise ArchitectureError("cannot widen a pruned architecture; widen what it was cut from and prune again")

    def moved(width: int, notch: int) -> int:
        return width if count == 0 else max(notch, (width // notch + count) * notch)

    _, notch = _width_and_notch(architecture, part)
    stages, decoder = architecture.stages, architecture.decoder
    if part < len(stages):
        wider = replace(stages[part], width=moved(stages[part].width, notch))
        return replace(architecture, stages=(*stages[:part], wider, *stages[part + 1 :]))
    if part > len(stages) or decoder is None:
        head = architecture.head
        return replace(architecture, head=replace(head, width=moved(head.width, notch)))
    if isinstance(decoder, DeconvDecoder):
        steps = tuple(replace(step, width=moved(step.width, notch)) for step in decoder.steps)
        return replace(architecture, decoder=replace(decoder, steps=steps))
    return replace(architecture, decoder=replace(decoder, width=moved(decoder.width, notch)))


def _width_and_notch(architecture: Architecture, part: int) -> tuple[int, int]:
    """Of a decoder with several widths, the first."""
    stages, decoder = architecture.stages, architecture.decoder
    if part < len(stages):
        stage = stages[part]
        return stage.width, math.lcm(STEP, {"sep": stage.expansion, "fpl": 4}.get(stage.block, 1))
    if part > len(stages) or decoder is None:
        return architecture.head.width, STEP
    return decoder.steps[0].width if isinstance(decoder, DeconvDecoder) else decoder.width, STEP


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
