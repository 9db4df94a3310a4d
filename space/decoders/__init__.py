"""Kinds of decoders, one file each, named after the kind. To add one, add a file here or an entry point.

Each file defines a `DECODER`, a subclass of `space.decoder.Decoder`: its numbers and their rules, its layers, its
questions and its description. Other packages add kinds through the entry points `framebudget.decoders` (see
`space.extensions`).
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
    """All kinds by name, in the order of their positions.

    Raises: UserError when a kind of another package cannot be used.
    """
    found = {name: _decoder(name) for name in extensions.modules(__name__, GROUP)}
    return dict(sorted(found.items(), key=lambda item: item[1].position))


def _decoder(name: str) -> type[Decoder]:
    decoder = getattr(extensions.load(__name__, GROUP, name), "DECODER", None)
    if not (inspect.isclass(decoder) and issubclass(decoder, Decoder) and not inspect.isabstract(decoder)):
        raise UserError(
            f"{GROUP}: expected DECODER, a subclass of space.decoder.Decoder, in the module of '{name}', got "
            f"{decoder!r}"
        )
    return decoder
