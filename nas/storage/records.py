"""Values stored as files of their own: YAML, read strictly."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TypeVar

from nas.storage.files import read_text
from space import UserError, strict

Kept = TypeVar("Kept")

_QUOTED = re.compile(r"(?<!\w)('[^']*'|\"[^\"]*\")(?!\w)")


def read_record(file: Path, what: str, kind: type[Kept]) -> Kept:
    """The value in a file. `what` describes it in messages, as in "a trial of a search".

    Raises: UserError when the file is missing, cannot be read or holds something else; DamagedError when it is not
    UTF-8.
    """
    text = read_text(file, what)
    try:
        return strict.parse(text, kind, str(file))
    except UserError as error:
        if _advises(str(error).removeprefix(str(file))):
            raise
        raise type(error)(f"{error}; if it was damaged, bring back the file that was there") from None


def _advises(words: str) -> bool:
    """Whether a message says what to do next: it has a semicolon outside of what it quotes, as all our messages do."""
    return ";" in _QUOTED.sub("", words)


def find_record(file: Path, what: str, kind: type[Kept]) -> Kept | None:
    """The value in a file as from `read_record`, or None if there is no such file.

    Raises: UserError when the file cannot be read or holds something else; DamagedError when it is not UTF-8.
    """
    with contextlib.suppress(OSError):  # a folder above may not be entered: reading reports it
        if not file.is_file():
            return None
    return read_record(file, what, kind)


def cached_record(file: Path, kind: type[Kept]) -> Kept | None:
    """The value in a file of a cache; None if it cannot be read and has to be made again."""
    try:
        return find_record(file, "what is cached", kind)
    except UserError:
        return None
