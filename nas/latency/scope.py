"""What a timed call includes, in words: the way from logits to labels is part of it and differs between networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.latency.protocol import SCOPE

if TYPE_CHECKING:
    from space.architecture import Architecture


def scope_of(architecture: Architecture) -> str:
    """The scope of latencies of this network."""
    side, factor = architecture.label_stride, architecture.head.shuffle
    if side == factor == 1:
        return SCOPE
    steps = ["network"]
    if factor > 1:
        steps.append(f"pixel shuffle by {factor}")
    if architecture.logits_stride > side * factor:
        steps.append("upsampling to the input size" if side == 1 else f"upsampling to 1/{side} of the input size")
    steps.append("arg-max to labels" if side == 1 else f"arg-max to labels of {side}x{side} pixels each")
    _, _, rest = SCOPE.partition(";")
    return f"{', '.join(steps)};{rest}"
