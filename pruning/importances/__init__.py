"""Kinds of importances, one file each, named after the kind. To add one, add a file here or an entry point.

Each file defines an `IMPORTANCE` (`pruning.importance.Importance`) and imports heavy libraries only when it is used.
Other packages add kinds through the entry points `framebudget.importances` (see `space.extensions`).
"""

from __future__ import annotations

import functools

from pruning.importance import Importance
from space import extensions
from space.errors import UserError, nearest

GROUP = "framebudget.importances"
BY_LOSS = "fisher"
BY_WEIGHTS = "magnitude"


@functools.cache
def kinds() -> dict[str, Importance]:
    """All kinds by name: those that need data, then those that do not.

    Raises: UserError when a kind of another package cannot be used.
    """
    found = {name: _importance(name) for name in extensions.modules(__name__, GROUP)}
    return dict(sorted(found.items(), key=lambda item: (not item[1].needs_data, item[0])))


def kind(name: str) -> Importance:
    """The kind of this name.

    Raises: UserError for an unknown one, with the nearest known name.
    """
    known = kinds()
    if name not in known:
        raise UserError(f"importance: expected one of {', '.join(known)}; got {name!r}; {nearest(name, known)}")
    return known[name]


def default(*, with_data: bool) -> str:
    """The kind to use by default."""
    return BY_LOSS if with_data else BY_WEIGHTS


def without_data() -> list[str]:
    """Names of the kinds that need no data, the default first."""
    names = [name for name, importance in kinds().items() if not importance.needs_data]
    return sorted(names, key=lambda name: name != BY_WEIGHTS)


def _importance(name: str) -> Importance:
    importance = getattr(extensions.load(__name__, GROUP, name), "IMPORTANCE", None)
    if not isinstance(importance, Importance):
        raise UserError(
            f"{GROUP}: expected IMPORTANCE, a pruning.importance.Importance, in the module of '{name}', got "
            f"{importance!r}"
        )
    return importance
