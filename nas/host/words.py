"""Small pieces of text for messages."""

from __future__ import annotations


def one_line(text: object, most: int | None = None, *, end: bool = False) -> str:
    """A text as one line: line breaks and other runs of whitespace become single spaces.

    `most`: number of characters to keep: the first ones or, with `end`, the last ones.
    """
    line = " ".join(str(text).split())
    if most is None:
        return line
    return line[-most:] if end else line[:most]


def counted(count: float, noun: str) -> str:
    """A number with a noun that takes an `s` in the plural: `1 epoch`, `2 epochs`."""
    return f"{count:.12g} {noun}{'' if count == 1 else 's'}"
