"""HTML and SVG text in which nothing that came from outside is taken for markup."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping

WITHOUT_END = ("br", "col", "img", "meta")
NOTHING: Mapping[str, object] = {}


class Html(str):
    """Text that is markup already; every other text is escaped where it meets one."""


def safe(value: object) -> Html:
    """`value` as markup: itself when it is, escaped text otherwise."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def joined(parts: Iterable[object]) -> Html:
    """Parts one after the other."""
    return Html("".join(safe(part) for part in parts))


def element(name: str, attributes: Mapping[str, object] = NOTHING, *content: object) -> Html:
    """One element; numbers among the attributes are written with at most two decimals."""
    written = "".join(f' {key}="{safe(_number(value))}"' for key, value in attributes.items())
    if name in WITHOUT_END:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(content)}</{name}>")


def _number(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
