"""Kinds of decoders: one file each, found by its name. A new kind is a new file here, or an entry point.

Each file holds a `DECODER`, a class of `space.decoder.Decoder`: its numbers with their rules, its layers, its questions
and its words. Other packages bring kinds through the entry points `framebudget.decoders` (see `space.extensions`).
"""

from __future__ import annotations

import functools
import inspect

from space import extensions
from space.decoder import Decoder
from space.errors import UserError

GROUP = "framebudget.decoders"


@functools.cache
def kinds() -> dict[str, type[Decoder]]:
    """Every kind by its name, in the order of their positions.

    Raises: UserError when one of another package cannot be used.
    """
    found = {name: _decoder(name) for name in extensions.modules(__name__, GROUP)}
    return dict(sorted(found.items(), key=lambda item: item[1].position))


def _decoder(name: str) -> type[Decoder]:
    decoder = getattr(extensions.load(__name__, GROUP, name), "DECODER", None)
    if not (inspect.isclass(decoder) and issubclass(decoder, Decoder) and not inspect.isabstract(decoder)):
        raise UserError(
            f"{GROUP}: expected DECODER, a class of space.decoder.Decoder, in the module of '{name}', got {decoder!r}"
        )
    return decoder
