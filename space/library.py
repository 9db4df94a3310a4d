"""The published networks, and loading an architecture by name or file."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path

from space.architecture import Architecture
from space.errors import ArchitectureError, nearest

SUFFIXES = (".yaml", ".yml")


@cache
def published() -> tuple[str, ...]:
    """Names of the networks in `space/published/`, sorted."""
    files = resources.files("space").joinpath("published").iterdir()
    return tuple(sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml")))


def load(name_or_path: str | Path, *, others: Iterable[str] = ()) -> Architecture:
    """A published network by name, or an architecture from a YAML file. `others`: further names that the caller knows,
    which may be suggested for a misspelt one.

    Raises: ArchitectureError when there is neither; UserError when the file does not describe an architecture.
    """
    name = str(name_or_path)
    if name in published():
        text = resources.files("space").joinpath("published", f"{name}.yaml").read_text("utf-8")
        return Architecture.from_yaml(text, source=name)
    path = Path(name_or_path)
    if path.suffix not in SUFFIXES and not path.is_file():
        raise ArchitectureError(
            f"expected a published network or a YAML file, got '{name}'; {nearest(name, (*published(), *others))}"
        )
    try:
        return Architecture.from_yaml(path.read_text("utf-8"), source=name)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise ArchitectureError(f"{name}: cannot read the architecture ({reason}); check the path") from None
