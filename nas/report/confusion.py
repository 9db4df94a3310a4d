"""A confusion matrix as a picture in a file of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from nas.report.drawing import FONT_PIXELS, framed, look
from nas.report.labels import shortened
from nas.report.palette import LIGHT
from nas.runs.evaluation import CREATOR

CELL_PIXELS = 34.0
MOST_NUMBERED = 40  # with more classes, cells are too small for numbers
SMALL_PIXELS = 6.0  # side of a cell without a number
LONGEST_NAME = 24
LETTER_PIXELS = 7.0
SHOWN_PERCENT = 0.5
"""Smallest share that is written; those that round to 0 are left out, so that confused classes stand out."""


def confusion_chart(classes: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> str:
    """SVG of a confusion matrix of pixels by (labelled class, predicted class). Each row shows shares in percent, so
    that rare classes are as easy to read as frequent ones. Classes without labelled pixels have an empty row.
    """
    pixels = np.asarray(counts, dtype=np.float64)  # (C, C)
    labelled = pixels.sum(axis=1, keepdims=True)
    percents = 100 * np.divide(pixels, labelled, out=np.zeros_like(pixels), where=labelled > 0)
    count, names = len(classes), [shortened(name, LONGEST_NAME) for name in classes]
    numbered = count <= MOST_NUMBERED
    side = count * (CELL_PIXELS if numbered else SMALL_PIXELS)
    names_width = LETTER_PIXELS * max(len(name) for name in names) + 30 if numbered else 40
    with look():
        beside = max(20.0, LETTER_PIXELS * len(title) - side)  # for a title wider than a small matrix
        figure, axes = framed(
            names_width + side + beside, names_width + side + 50, names_width, names_width, beside, 50
        )
        shades = LinearSegmentedColormap.from_list("shares", [LIGHT["ground"], LIGHT["guided"]])
        axes.pcolormesh(
            np.arange(count + 1),
            np.arange(count + 1),
            percents,
            cmap=shades,
            vmin=0,
            vmax=100,
            rasterized=not numbered,
            edgecolors=LIGHT["line"] if numbered else "none",
            linewidth=0.5,
        )
        axes.set_xlim(0, count)
        axes.set_ylim(count, 0)
        axes.set_title(title, loc="left", color=LIGHT["ink"], pad=14)
        axes.set_xlabel("predicted")
        axes.set_ylabel("labelled")
        axes.tick_params(length=0)
        axes.spines.bottom.set_visible(False)
        places = np.arange(count) + 0.5
        axes.set_xticks(places if numbered else [], names if numbered else [], rotation=90)
        axes.set_yticks(places if numbered else [], names if numbered else [])
        if numbered:
            _write_shares(axes, percents)
        figure.patch.set(visible=True, facecolor=LIGHT["ground"])
        figure.set_frameon(True)
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": CREATOR})
    return written.getvalue()


def _write_shares(axes: Axes, percents: NDArray[np.float64]) -> None:
    for (row, column), share in np.ndenumerate(percents):
        if share >= SHOWN_PERCENT:
            axes.text(
                column + 0.5,
                row + 0.5,
                f"{share:.0f}",
                horizontalalignment="center",
                verticalalignment="center",
                fontsize=FONT_PIXELS - 1,
                color=LIGHT["ground" if share > 55 else "ink"],
            )
