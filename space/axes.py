"""The axes of the space: all options of each, and the narrower options that a search uses by default.

Each part of a network defines its own axes; this module collects them.
"""

from __future__ import annotations

import functools

from space import architecture, blocks, context, decoder, decoders, detail, head, stage, stem
from space.choices import Axes, Choice, is_list
from space.errors import ArchitectureError, UserError, nearest

NUMBER_LISTS = ("stage.rates", "context.grids", "context.strides", "decoder.bins")


@functools.cache
def ranges() -> Axes:
    """Every axis with all its options.

    Raises: UserError when two decoders define the same axis differently.
    """
    found: dict[str, tuple[Choice, ...]] = {
        **stem.AXES,
        "block": blocks.names(),
        **stage.AXES,
        **detail.AXES,
        "decoder": ("none", *decoders.kinds()),
        **decoder.WIDTHS,
        **context.AXES,
        **head.AXES,
        **architecture.AXES,
    }
    for decoder_name, kind in decoders.kinds().items():
        for axis, options in kind.axes.items():
            if found.setdefault(axis, options) != options:
                raise UserError(
                    f"expected one definition of the axis '{axis}', got another from the decoder {decoder_name}; "
                    "rename its axis"
                )
    for name, block in blocks.kinds().items():
        found |= {f"{name}.{option}": about.range for option, about in block.options.items()}
    return found


@functools.cache
def searched() -> Axes:
    """The narrower options of axes that a search uses by default, without choices that affect neither accuracy nor
    latency.
    """
    found: dict[str, tuple[Choice, ...]] = {
        "block": tuple(name for name, block in blocks.kinds().items() if block.default_in_search),
        "decoder": ("none", *(name for name, kind in decoders.kinds().items() if kind.default_in_search)),
        **stem.SEARCHED,
        **stage.SEARCHED,
        **head.SEARCHED,
        **architecture.SEARCHED,
    }
    for kind in decoders.kinds().values():
        found |= kind.searched
    return found


def check_text(axis: str, option: Choice) -> None:
    """Check a text option: a known name, or any list of numbers for axes of lists; other types pass.

    Raises: ArchitectureError for any other text.
    """
    known = ranges()[axis]
    if not isinstance(option, str) or option in known:
        return
    if axis not in NUMBER_LISTS:
        hint = nearest(option, [str(each) for each in known])
        raise ArchitectureError(f"space.{axis}: there is no '{option}'; {hint}")
    if not is_list(option):
        raise ArchitectureError(f"space.{axis}: expected numbers like '2-4-8', got '{option}'")
