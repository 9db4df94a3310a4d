"""Finds extensions: modules in a folder of this project, and modules of other packages through entry points.

A package with a kind of block called `shuffle` in its module `fast_blocks.shuffle` declares it in `pyproject.toml`:

    [project.entry-points."framebudget.blocks"]
    shuffle = "fast_blocks.shuffle"

Code is never loaded because a YAML file names it: a file can only name what is installed.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from importlib import metadata
from types import ModuleType

from space.errors import UserError, nearest


@functools.cache
def modules(package: str, group: str, separator: str = "-") -> dict[str, str]:
    """Module of every kind, by name: the files in the folder of `package`, in alphabetical order, then the entry points
    of `group`. The file a_b.py is the kind a-b; `separator` is the character that replaces the underscore.

    Raises: UserError when two kinds have the same name.
    """
    folder = importlib.import_module(package).__path__
    found = {each.name.replace("_", separator): f"{package}.{each.name}" for each in pkgutil.iter_modules(folder)}
    found = dict(sorted(found.items()))
    for point in sorted(metadata.entry_points(group=group), key=lambda point: point.name):
        if point.name in found:
            raise UserError(
                f"expected one '{point.name}' in {group}, got {found[point.name]} and {point.module}; uninstall one of "
                "the packages that define them"
            )
        found[point.name] = point.module
    return found


def load(package: str, group: str, name: str, separator: str = "-", *, needs: tuple[str, ...] = ()) -> ModuleType:
    """The module of the kind `name`, which must define all names in `needs`.

    Raises: UserError for an unknown kind, with the nearest known name, and for a module of another package that cannot
    be imported; for a module without some of the names.
    """
    known = modules(package, group, separator)
    if name not in known:
        raise UserError(f"expected one of {', '.join(known)}; got {name!r}; {nearest(name, known)}")
    try:
        module = importlib.import_module(known[name])
    except ImportError as error:
        if known[name].startswith(f"{package}."):
            raise
        raise UserError(f"{group}: '{name}' cannot be loaded from {known[name]} ({error}); install it again") from None
    missing = [each for each in needs if not hasattr(module, each)]
    if missing:
        raise UserError(
            f"{group}: expected {', '.join(needs)} in {known[name]}, got a module without {', '.join(missing)}"
        )
    return module
