"""What the charts share: their look, their frame, and the words in them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import Literal

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import IdentityTransform

from nas.report.palette import LIGHT
from nas.report.svg import css

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
    "lines.markersize": 5,
    "lines.markeredgewidth": 0,
    "xtick.color": LIGHT["soft"],
    "ytick.color": LIGHT["soft"],
}


@contextlib.contextmanager
def look() -> Iterator[None]:
    """Draw and save within this: ours, whatever a user's matplotlibrc says."""
    with matplotlib.style.context(["default", _LOOK]), warnings.catch_warnings():
        # Words are laid out by matplotlib's own font, and shown by the reader's, which may well have the glyph.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def framed(width: float, height: float, left: float, bottom: float, right: float, top: float) -> tuple[Figure, Axes]:
    """An empty figure of so many pixels, and its axes within margins."""
    figure = Figure(figsize=(width / 72, height / 72))
    frame = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(frame)


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
    draw_words(axes, "mIoU (%)", (0, 1), (-44, 14), kind="heading")


def draw_words(
    axes: Axes,
    words: str,
    place: tuple[float, float],
    offset: tuple[float, float],
    *,
    across: str = "axes fraction",
    up: str = "axes fraction",
    align: Literal["left", "right"] = "left",
    colour: str = "soft",
    kind: str = "",
) -> None:
    """Words so many pixels from a place in shares of the frame; `across` and `up` may be "data" instead."""
    axes.annotate(
        words,
        place,
        offset,
        xycoords=(across, up),
        textcoords="offset points",
        horizontalalignment=align,
        color=LIGHT[colour],
        gid=css(kind),
    )


def draw_name(axes: Axes, words: str, x: float, y: float, *, bold: bool, align: Literal["left", "center"]) -> None:
    """A network's name whose base line begins at, or has its middle at, a place in pixels."""
    kind = css("winner-name" if bold else "name")
    axes.text(x, y, words, transform=IdentityTransform(), horizontalalignment=align, gid=kind)


def draw_leader(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """A thin line, in pixels, from what has a name to the name."""
    axes.plot(x, y, transform=IdentityTransform(), color=LIGHT["soft"], linewidth=0.7, alpha=0.5)
