"""Narrower and wider versions of an architecture: one factor on all widths, or changes of single parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from space.architecture import Architecture
from space.decoder import Decoder
from space.detail import Detail
from space.errors import ArchitectureError
from space.rules import WIDEST
from space.stage import Stage

ROOM = 8  # multiples by which rounding may exceed a scaled width
STEP = 4  # channels, the smallest change of a width
NARROWEST = 0.03  # width factor; below it every network is at its minimum widths, or useless
HALVINGS = 10  # bisection steps over a range of factors, on a logarithmic scale
NARROWEST_STEM = 4  # channels: one more than the image has


def scale_width(architecture: Architecture, factor: float, *, multiple: int = STEP) -> Architecture:
    """The architecture with every width multiplied by `factor` and rounded to a valid multiple; depths stay.

    Stages open in the same way: a `cat` downsampler whose convolution adds channels to the pool keeps adding some, and
    one that adds none gets none. Very small factors therefore saturate, and so do very large ones, at the largest
    width that an architecture may have.

    Raises: ArchitectureError for a factor that is not positive and finite, or a pruned architecture.
    """
    if not 0 < factor < math.inf:
        raise ArchitectureError(f"factor: expected a positive number, got {factor}")
    if multiple < 1:
        raise ArchitectureError(f"multiple: expected at least 1, got {multiple}")
    if architecture.channels:
        raise ArchitectureError("cannot scale a pruned architecture; scale it before pruning, then prune again")

    factor = min(factor, (WIDEST - ROOM * multiple) / _largest_width(architecture))

    def scaled(width: int, least: int = 1) -> int:
        if width == 0:
            return 0
        target = max(width * factor, least)
        return max(-(-least // multiple) * multiple, round(target / multiple) * multiple, multiple)

    stem = replace(architecture.stem, width=scaled(architecture.stem.width, NARROWEST_STEM))
    stages: list[Stage] = []
    incoming = stem.out_width
    for stage, grows in zip(architecture.stages, architecture.encoder.grows, strict=True):
        least = max(stage.narrowest, incoming + 1 if grows else 1)
        width = scaled(stage.width, least)
        if stage.down == "cat" and not grows:  # if wider than its input, the stage would open with a pool beside
            width = min(width, incoming // stage.width_unit * stage.width_unit)
        stages.append(stage.with_width(width))
        incoming = stages[-1].out_width
    context, decoder, detail = architecture.context, architecture.decoder, architecture.detail
    return replace(
        architecture,
        stem=stem,
        stages=tuple(stages),
        context=None if context is None else context.scaled(scaled, factor),
        decoder=None if decoder is None else decoder.scaled(scaled),
        detail=None if detail is None else detail.with_widths(scaled),
        head=architecture.head.scaled(scaled),
    )


def bisected(low: float, high: float, fits: Callable[[float], bool]) -> float:
    """The largest factor that fits, approximately, between `low`, which fits, and `high`, which does not."""
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def parts(architecture: Architecture) -> int:
    """Number of parts with a width of their own: the stages, then the decoder or detail branch, then the head."""
    return len(architecture.stages) + (_beyond(architecture) is not None) + bool(architecture.head.width)


def notches(architecture: Architecture, part: int, *, vector: int) -> tuple[int, ...]:
    """Changes of a part's width that are worth trying, in notches: up to two down or up, and up to the next two
    multiples of `vector`, the number of channels that the hardware processes at once. A notch is the part's smallest
    change: `STEP` channels, or the smallest multiple of it that the part allows.
    """
    width, notch = _width_and_notch(architecture, part)
    whole = (vector * (width // vector + count) for count in (1, 2))
    return tuple(sorted({-2, -1, 0, 1, 2, *(math.ceil((channels - width) / notch) for channels in whole)}))


def with_part(architecture: Architecture, part: int, count: int) -> Architecture:
    """The architecture with one part's width changed by `count` notches; all other widths stay.

    Raises: ArchitectureError if the layers around the part forbid that, and for a pruned architecture.
    """
    if architecture.channels:
        raise ArchitectureError("cannot widen a pruned architecture; widen it before pruning, then prune again")
    _, notch = _width_and_notch(architecture, part)

    def moved(width: int) -> int:
        return width if count == 0 else max(notch, (width // notch + count) * notch)

    stages, beyond = architecture.stages, _beyond(architecture)
    if part < len(stages):
        wider = replace(stages[part], width=moved(stages[part].width))
        changed = replace(architecture, stages=(*stages[:part], wider, *stages[part + 1 :]))
        if changed.encoder.grows != architecture.encoder.grows:
            raise ArchitectureError(
                f"stages: with {wider.width} channels in stage {part}, a stage would open with another layer, with or "
                "without a pool beside its convolution; change the widths around it too"
            )
        return changed
    if part > len(stages) or beyond is None:
        return replace(architecture, head=architecture.head.scaled(moved))
    if isinstance(beyond, Decoder):
        return replace(architecture, decoder=beyond.with_widths(moved))
    return replace(architecture, detail=beyond.with_widths(moved))


def _beyond(architecture: Architecture) -> Decoder | Detail | None:
    """The part with widths of its own besides the stages and the head: a network never has both."""
    return architecture.detail if architecture.decoder is None else architecture.decoder


def _width_and_notch(architecture: Architecture, part: int) -> tuple[int, int]:
    """Width and notch of a part; of a decoder or branch with several widths, of the first."""
    stages, beyond = architecture.stages, _beyond(architecture)
    if part < len(stages):
        return stages[part].width, math.lcm(STEP, stages[part].width_unit)
    if part > len(stages) or beyond is None:
        return architecture.head.width, STEP
    return beyond.first_width(), math.lcm(STEP, beyond.width_unit())


def _largest_width(architecture: Architecture) -> int:
    widths = [architecture.stem.width, *(stage.width for stage in architecture.stages), architecture.head.width]
    if architecture.decoder is not None:
        widths.append(architecture.decoder.largest_width())
    if architecture.context is not None:
        widths.append(architecture.context.largest_width())
    if architecture.detail is not None:
        widths += [part.width for part in architecture.detail.parts]
    return max(widths)
