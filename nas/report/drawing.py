"""The look that all charts share, and a matplotlib figure as SVG inside the page.

The page's own style takes over what a reader may choose: the font, and colours for light, dark and print. What
matplotlib has no field for travels in an artist's `gid`, and `as_svg` turns it into a `<title>` or a CSS class.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Iterator
from xml.etree import ElementTree

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from nas.report.palette import LIGHT

FONT_PIXELS = 12.0
DISC = Path.arc(0, 360, n=4)  # matplotlib's own "o" is twice as many curves, and a page has hundreds

_LOOK = {
    "text.parse_math": False,  # a name with dollar signs is a name
    "svg.fonttype": "none",  # words stay words, in the reader's font
    "figure.dpi": 72,  # a point is a pixel of the SVG
    "figure.frameon": False,
    "font.size": FONT_PIXELS,
    "text.color": LIGHT["ink"],
    "axes.facecolor": "none",
    "axes.edgecolor": LIGHT["soft"],
    "axes.labelcolor": LIGHT["soft"],
    "axes.labelpad": 6,
    "axes.titlesize": "medium",
    "axes.axisbelow": True,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 1,
    "lines.scale_dashes": False,
    "lines.solid_capstyle": "butt",
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
}
_COLOUR_NAMES = {colour: name for name, colour in LIGHT.items()}
_HREF = "{http://www.w3.org/1999/xlink}href"
_COLOUR = re.compile("#[0-9a-f]{6}")
_DECIMALS = re.compile(r"-?\d+\.\d{3,}")
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Draw and save within this: ours, whatever a user's matplotlibrc says."""
    with matplotlib.style.context(["default", _LOOK]), warnings.catch_warnings():
        # Words are laid out by matplotlib's own font, and shown by the reader's, which may well have the glyph.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


def framed(width: float, height: float, left: float, bottom: float, right: float, top: float) -> tuple[Figure, Axes]:
    """An empty figure of so many pixels, and its axes within margins."""
    figure = Figure(figsize=(width / 72, height / 72))
    frame = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(frame)


def hover(words: str) -> str:
    """The `gid` of an artist that shows `words` under the pointer."""
    return f"title: {words}"


def css(name: str) -> str:
    """The `gid` of an artist that a rule of the style sheet speaks of."""
    return f"class: {name}"


def as_svg(figure: Figure, name: str, title: str) -> Markup:
    """`figure` as an `<svg>` element as wide as its place: no identifiers, no links, no fonts, colours as variables.

    `name` is for those who hear the page, `title` for those who point at the picture. A colour that is not in the
    palette is a KeyError: it would be wrong in the dark.
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
    return Markup(ElementTree.tostring(svg, encoding="unicode"))  # which escaped all words


def _flatten(svg: ElementTree.Element) -> None:
    """Plain names, no definitions, shapes where they are used, no space between elements."""
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
    """What the page needs to know of an element, in as few bytes as that takes."""
    kind, _, words = element.attrib.pop("id", "").partition(": ")
    for key, value in element.attrib.items():
        element.attrib[key] = _DECIMALS.sub(lambda number: f"{float(number[0]):.2f}", " ".join(value.split()))
    if "style" in element.attrib:
        kept = [each for each in element.attrib["style"].split("; ") if not each.startswith("font")]
        element.attrib["style"] = _COLOUR.sub(lambda colour: f"var(--{_COLOUR_NAMES[colour[0]]})", "; ".join(kept))
    if kind == "class":
        element.attrib["class"] = words
    if kind == "title":
        _add_title(element, words)


def _add_title(element: ElementTree.Element, words: str) -> None:
    title = ElementTree.Element("title")
    title.text = words
    element.insert(0, title)


def ticks_within(low: float, high: float, most: int = 7) -> list[float]:
    """Round values of a range, evenly apart."""
    ticks = MaxNLocator(nbins=most, steps=[1, 2, 5, 10]).tick_values(low, high)
    edge = 1e-9 * (high - low)
    return [float(tick) for tick in ticks if low - edge <= tick <= high + edge]


def draw_percent_axis(axes: Axes, low: float, high: float) -> None:
    """Horizontal lines between two shares, their values in per cent at the left, and above these what they are."""
    ticks = ticks_within(low, high)
    decimals = 0 if all(abs(100 * tick - round(100 * tick)) < 1e-6 for tick in ticks) else 1
    axes.set_yticks(ticks, [f"{100 * tick:.{decimals}f}" for tick in ticks])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")
    axes.annotate(
        "mIoU (%)",
        (0, 1),
        (-44, 14),
        xycoords="axes fraction",
        textcoords="offset points",
        color=LIGHT["soft"],
        gid=css("heading"),
    )
