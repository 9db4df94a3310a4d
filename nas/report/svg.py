"""A matplotlib figure as SVG inside the page.

Font and colours (light, dark or print) come from the page's style sheet. Tooltips and CSS classes, for which matplotlib
has no field, are passed in an artist's `gid` and become a `<title>` or a class.
"""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib.figure import Figure

from nas.report.palette import LIGHT

_COLOUR_NAMES = {colour: name for name, colour in LIGHT.items()}
_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile("#[0-9a-f]{6}")
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def hover(words: str) -> str:
    """The `gid` of an artist that shows `words` as a tooltip."""
    return f"title: {words}"


def css(name: str) -> str:
    """The `gid` of an artist that has a CSS class."""
    return f"class: {name}"


def as_svg(figure: Figure, name: str, title: str) -> Markup:
    """`figure` as an `<svg>` element that fills its width, without identifiers, links or fonts, with colour variables.

    `name` is the label for screen readers, `title` the tooltip. A colour that is not in the palette raises KeyError: it
    would be wrong in dark mode.
    """
    for artist in figure.findobj():
        artist.set_clip_on(False)  # clip paths would be identifiers; nothing is drawn outside its frame
    written = io.StringIO()
    figure.savefig(written, format="svg")
    svg = ElementTree.fromstring(_NOT_XML.sub("\ufffd", written.getvalue()))
    _flatten(svg)
    for element in list(svg.iter()):
        _restyle(element)
    box = {"viewBox": svg.attrib["viewBox"], "class": "chart", "role": "img", "aria-label": name}
    svg.attrib.clear()
    svg.attrib.update(box)
    _add_title(svg, title)
    return Markup(ElementTree.tostring(svg, encoding="unicode"))  # `tostring` escapes all text


def _flatten(svg: ElementTree.Element) -> None:
    """Drop namespaces, definitions and the space between elements, and copy shapes to where they are used."""
    for element in svg.iter():
        element.tag = element.tag.partition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
    shapes = {f"#{path.attrib['id']}": path.attrib["d"] for path in svg.iterfind(".//defs/path")}
    for use in svg.iter("use"):
        use.tag = "path"
        place = f"translate({use.attrib.pop('x')} {use.attrib.pop('y')})"
        use.attrib |= {"d": shapes[use.attrib.pop(_HREF)], "transform": place}
    for parent in list(svg.iter()):
        for child in list(parent):
            if child.tag in ("defs", "metadata"):
                parent.remove(child)


def _restyle(element: ElementTree.Element) -> None:
    """Reduce an element's attributes to those that the page needs, in few bytes."""
    kind, _, words = element.attrib.pop("id", "").partition(": ")
    for key, value in element.attrib.items():
        element.attrib[key] = _DECIMALS.sub(lambda number: f"{float(number[0]):.2f}", " ".join(value.split()))
    if "style" in element.attrib:
        kept = [each for each in element.attrib["style"].split("; ") if not each.startswith("font")]
        element.attrib["style"] = _COLOUR.sub(lambda colour: f"var(--{_COLOUR_NAMES[colour[0]]})", "; ".join(kept))
    if kind == "class" and words:
        element.attrib["class"] = words
    if kind == "title":
        _add_title(element, words)


def _add_title(element: ElementTree.Element, words: str) -> None:
    title = ElementTree.Element("title")
    title.text = words
    element.insert(0, title)
