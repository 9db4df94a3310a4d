"""Common parts of the charts: their style, frame, axes and text."""

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
DISC = Path.arc(0, 360, n=4)  # half as many curves as matplotlib's "o", of which a page has hundreds

_LOOK = {
    "text.parse_math": False,  # dollar signs in names are no formulas
    "svg.fonttype": "none",  # text stays text, in the reader's font
    "figure.dpi": 72,  # one point is one pixel of the SVG
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
    """The charts' style, regardless of the user's matplotlibrc; draw and save inside this context."""
    with matplotlib.style.context(["default", _LOOK]), warnings.catch_warnings():
        # matplotlib lays out text with its own font; the reader's font may well have the missing glyph.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def framed(width: float, height: float, left: float, bottom: float, right: float, top: float) -> tuple[Figure, Axes]:
    """An empty figure of a size in pixels, and its axes inside margins."""
    figure = Figure(figsize=(width / 72, height / 72))
    frame = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    return figure, figure.add_axes(frame)


def ticks_within(low: float, high: float, most: int = 7) -> list[float]:
    """Evenly spaced round values within a range."""
    ticks = MaxNLocator(nbins=most, steps=[1, 2, 5, 10]).tick_values(low, high)
    edge = 1e-9 * (high - low)
    return [float(tick) for tick in ticks if low - edge <= tick <= high + edge]


def draw_percent_axis(axes: Axes, low: float, high: float) -> None:
    """Draw a vertical mIoU axis between two shares: horizontal grid lines with percentages at the left."""
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
    """Draw text at an offset in pixels from a place, which is in shares of the frame, or with `across` or `up` set to
    "data" in data coordinates.
    """
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
    """Draw a network's name with its base line at a place in pixels, aligned left or centred there."""
    kind = css("winner-name" if bold else "name")
    axes.text(x, y, words, transform=IdentityTransform(), horizontalalignment=align, gid=kind)


def draw_leader(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    """Draw a thin line, in pixels, from a point or curve to its name."""
    axes.plot(x, y, transform=IdentityTransform(), color=LIGHT["soft"], linewidth=0.7, alpha=0.5)
