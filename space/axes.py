"""The axes of the space: what each can be, and what a search looks at unless told otherwise.

A choice is a scalar. Lists of numbers are text, so that samplers and YAML see a scalar: "2-4-8-16".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from space.errors import ArchitectureError, nearest

Choice = str | int | float | bool
Ask = Callable[[str, Sequence[Choice]], Choice]
Genotype = Mapping[str, Choice]

RANGES: Mapping[str, tuple[Choice, ...]] = {
    "stem.kind": ("cat", "convs", "conv_pool"),
    "stem.width": (8, 16, 24, 32, 48, 64),
    "stem.kernel": (3, 7),
    "stem.convolutions": (1, 2, 3),
    "stem.image": (False, True),
    "stages": (2, 3, 4, 5, 6, 7),
    "block": ("nonbt", "fpl", "esp", "sep", "inverted"),
    "factorization": ("none", "composite", "all"),
    "down": ("cat", "module", "block"),
    "fuse": ("none", "add", "concat", "image", "image_add", "image_concat", "fir"),
    "pairwise_fusion": ("pairs", "stage1", "pairs_partial"),
    "stage.width": (16, 24, 32, 48, 64, 96, 128, 160, 192, 256, 320, 384, 512, 1024),
    "stage.depth": tuple(range(1, 17)),
    "stage.stride": (1, 2),
    "stage.rates": ("1", "2", "4", "2-4-8-16", "1-2-4-8", "1-2-3-4", "1-2-4-8-16"),
    "stage.dropout": (0.0, 0.03, 0.1, 0.3),
    "stage.expansion": (1, 4, 6),
    "decoder": ("none", "deconv", "cat", "ladder"),
    "decoder.width": (16, 32, 48, 64, 96, 128, 256),
    "decoder.depth": (0, 1, 2, 3),
    "decoder.projection": (0, 32, 64),
    "decoder.taps": ("sum", "relu"),
    "context": ("none", "spp"),
    "context.bottleneck": (32, 64, 128),
    "context.grids": ("8-4-2", "4-2-1", "2-1"),
    "levels": (1, 2, 3),
    "head": ("linear", "linear_nobias", "sep", "preact"),
    "head.width": (32, 64),
    "activation": ("relu", "prelu", "relu6"),
    "norm_epsilon": (1e-5, 1e-3),
    "bias": (False, True),
    "align_corners": (False, True),
    "auxiliary": ("none", "linear", "sep"),
}

NUMBER_LISTS = ("stage.rates", "context.grids")

# What a search needs to look at: no choices that leave both accuracy and latency alone.
SEARCHED: Mapping[str, tuple[Choice, ...]] = {
    "stages": (2, 3, 4),
    "block": ("nonbt", "fpl", "sep"),
    "pairwise_fusion": ("pairs",),
    "stage.width": (16, 24, 32, 48, 64, 96, 128, 192, 256, 384),
    "stage.depth": (1, 2, 3, 4, 6, 8, 12),
    "stage.dropout": (0.0,),
    "stage.expansion": (4,),
    "decoder.taps": ("sum",),
    "levels": (1,),
    "activation": ("relu", "prelu"),
    "norm_epsilon": (1e-3,),
    "bias": (False,),
    "align_corners": (False,),
    "auxiliary": ("none",),
}


def check_text(axis: str, option: Choice) -> None:
    """Names come from a closed set; lists of numbers only have to be lists of numbers."""
    if not isinstance(option, str) or option in RANGES[axis]:
        return
    if axis not in NUMBER_LISTS:
        raise ArchitectureError(
            f"space.{axis}: there is no '{option}'; {nearest(option, [str(known) for known in RANGES[axis]])}"
        )
    if not re.fullmatch(r"[1-9][0-9]*(-[1-9][0-9]*)*", option):
        raise ArchitectureError(f"space.{axis}: expected numbers like '2-4-8', got '{option}'")


def numbers(text: str) -> tuple[int, ...]:
    """ "2-4-8" as (2, 4, 8)."""
    return tuple(int(part) for part in text.split("-"))


def text_of(values: Sequence[int]) -> str:
    """(2, 4, 8) as "2-4-8"."""
    return "-".join(str(value) for value in values)
