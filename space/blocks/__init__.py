"""Kinds of encoder blocks, one file each, named after the kind. To add one, add a file here or an entry point.

Each file defines a `BLOCK` (`space.block.Block`): its layers, its numbers and their rules, its axes and its name for
people. Other packages add kinds through the entry points `framebudget.blocks` (see `space.extensions`).
"""

from __future__ import annotations

import functools

from space import extensions
from space.block import Block
from space.errors import ArchitectureError, UserError, nearest

GROUP = "framebudget.blocks"


@functools.cache
def kinds() -> dict[str, Block]:
    """All kinds by name, in the order of their positions.

    Raises: UserError when a kind of another package cannot be used.
    """
    found = {name: _block(name) for name in extensions.modules(__name__, GROUP)}
    return dict(sorted(found.items(), key=lambda item: item[1].position))


def names() -> tuple[str, ...]:
    """Names of all kinds, in the order of their positions."""
    return tuple(kinds())


def kind(name: str) -> Block:
    """The kind of this name.

    Raises: ArchitectureError for an unknown one, with the nearest known name.
    """
    known = kinds()
    if name not in known:
        raise ArchitectureError(f"block: expected one of {', '.join(known)}; got {name!r}; {nearest(name, known)}")
    return known[name]


def _block(name: str) -> Block:
    block = getattr(extensions.load(__name__, GROUP, name), "BLOCK", None)
    if not isinstance(block, Block):
        raise UserError(f"{GROUP}: expected BLOCK, a space.block.Block, in the module of '{name}', got {block!r}")
    return block
