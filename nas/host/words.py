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


def counted(count: float, one: str, more: str = "") -> str:
    """A number with words that agree with it: `1 epoch`, `2 epochs`; `1 latency is`, `2 latencies are`.

    `one`, `more`: the words after 1 and after any other number; without `more`, the latter are `one` with an `s`.
    """
    return f"{count:.12g} {one if count == 1 else more or f'{one}s'}"
