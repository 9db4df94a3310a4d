"""Kinds of things that are a file each: found in a folder of ours, and in other packages through entry points.

A package that brings a block kind called `shuffle` in its module `fast_blocks.shuffle` says so in its `pyproject.toml`:

    [project.entry-points."framebudget.blocks"]
    shuffle = "fast_blocks.shuffle"

Nothing is ever loaded because a YAML file names it: what can be named is what is installed.
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
    """Name of every kind to the module that holds it: the files in the folder of `package`, in alphabetical order, then
    the entry points of `group`. The file a_b.py is the kind a-b, or has another `separator` in its name.

    Raises: UserError when two are called the same.
    """
    folder = importlib.import_module(package).__path__
    found = {each.name.replace("_", separator): f"{package}.{each.name}" for each in pkgutil.iter_modules(folder)}
    found = dict(sorted(found.items()))
    for point in sorted(metadata.entry_points(group=group), key=lambda point: point.name):
        if point.name in found:
            raise UserError(
                f"expected one '{point.name}' in {group}, got {found[point.name]} and {point.module}; uninstall one of "
                "the packages that bring them"
            )
        found[point.name] = point.module
    return found


def load(package: str, group: str, name: str, separator: str = "-", *, needs: tuple[str, ...] = ()) -> ModuleType:
    """The module that holds the kind `name`, and offers all that it `needs`.

    Raises: UserError when there is none, with the nearest known name, or when another package's cannot be imported or
    lacks something.
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
        raise UserError(f"{group}: expected {', '.join(needs)} in {known[name]}, got none of {', '.join(missing)}")
    return module
