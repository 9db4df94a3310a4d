"""The axes of the space: what each can be, and what a search looks at unless told otherwise.

Each part of a network knows its own; here they come together.
"""

from __future__ import annotations

import functools

from space import architecture, blocks, context, decoder, decoders, detail, head, stage, stem
from space.choices import Axes, Choice, is_list
from space.errors import ArchitectureError, UserError, nearest

NUMBER_LISTS = ("stage.rates", "context.grids", "context.strides", "decoder.bins")


@functools.cache
def ranges() -> Axes:
    """Every axis and all that it can be.

    Raises: UserError when decoders disagree about an axis.
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
                    f"expected one meaning of the axis '{axis}', got another one from the decoder {decoder_name}; it "
                    "needs a name of its own"
                )
    for name, block in blocks.kinds().items():
        found |= {f"{name}.{option}": about.range for option, about in block.options.items()}
    return found


@functools.cache
def searched() -> Axes:
    """Narrower ranges for what a search needs to look at: no choices that leave both accuracy and latency alone."""
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
    """Names come from a closed set; lists of numbers only have to be lists of numbers.

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
