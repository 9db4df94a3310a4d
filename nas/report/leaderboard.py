"""The files of `nas measure`: latencies of networks as tables and as a picture."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from nas.latency.record import Latency
from nas.report.drawing import look
from nas.report.palette import LIGHT
from nas.storage.files import write_atomically, write_text

TABLE = "latency.csv"
BLOCKS = "blocks.csv"
PICTURE = "latency.png"
COLUMNS = (
    "network", "target", "height", "width", "threads", "p50_milliseconds", "p90_milliseconds", "p99_milliseconds",
    "ci_low_milliseconds", "ci_high_milliseconds", "samples", "flagged",
)  # fmt: skip
COLUMNS_OF_BLOCKS = "network,block,candidate_milliseconds,reference_milliseconds"
SOFTWARE = "nas measure"
MARKS: Mapping[str, str] = {TABLE: ",".join(COLUMNS), BLOCKS: COLUMNS_OF_BLOCKS, PICTURE: f"Software\0{SOFTWARE}"}
"""Text that identifies a file of an earlier leaderboard; only such files are replaced."""


def write_leaderboard(folder: Path, latencies: Mapping[str, Latency]) -> None:
    """Write the latencies of networks, by name and in the order given, as CSV and as a picture, and a CSV file with all
    blocks of calls.

    Raises: UserError when a table there is of another kind.
    """
    _write_table(folder / TABLE, latencies)
    _write_blocks(folder / BLOCKS, latencies)
    with look():
        _draw(folder / PICTURE, latencies)


def _write_table(path: Path, latencies: Mapping[str, Latency]) -> None:
    """Write latencies as CSV, in the order given."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for name, one in latencies.items():
        numbers = (getattr(one, column) for column in COLUMNS if column.endswith("_milliseconds"))
        shape = (one.height, one.width, one.environment.get("threads", ""))
        milliseconds = (f"{number:.4f}" for number in numbers)
        writer.writerow((name, one.target, *shape, *milliseconds, one.samples, "; ".join(one.flagged)))
    write_text(path, text.getvalue(), mark=MARKS[TABLE])


def _write_blocks(path: Path, latencies: Mapping[str, Latency]) -> None:
    """Write the times of each block of calls, in the machine's own milliseconds."""
    lines = [COLUMNS_OF_BLOCKS]
    for name, one in latencies.items():
        lines += [f"{name},{index},{times[0]:.4f},{times[1]:.4f}" for index, times in enumerate(one.blocks)]
    write_text(path, "\n".join(lines) + "\n", mark=MARKS[BLOCKS])


def _draw(path: Path, latencies: Mapping[str, Latency]) -> None:
    """Draw a picture (PNG) with a bar for each network and the 95 % interval of its median; pale bars are flagged."""
    some = next(iter(latencies.values()))
    size = (8, 1.4 + 0.34 * len(latencies))
    figure = Figure(figsize=size, layout="constrained", dpi=120, facecolor=LIGHT["ground"], frameon=True)
    axes = figure.add_subplot()
    for row, one in enumerate(latencies.values()):
        below = one.p50_milliseconds - one.ci_low_milliseconds
        above = one.ci_high_milliseconds - one.p50_milliseconds
        axes.barh(
            row,
            one.p50_milliseconds,
            xerr=[[max(below, 0)], [max(above, 0)]],
            color="#3b6ea5",
            alpha=0.45 if one.flagged else 1,
            error_kw={"ecolor": "#222222", "capsize": 3, "linewidth": 1},
        )
        text = f" {one.p50_milliseconds:.3g} ms"
        axes.text(one.ci_high_milliseconds, row, text, va="center", fontsize=8)
    axes.set_yticks(range(len(latencies)), list(latencies))
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel("median latency, milliseconds, with 95 % interval")
    axes.set_title(f"{some.target}, {some.height}x{some.width}, batch {some.batch}", fontsize=10)
    if any(one.flagged for one in latencies.values()):
        axes.annotate(
            "pale: measured on a busy machine",
            (0.99, 0.97),
            xycoords="axes fraction",
            ha="right",
            va="top",
            fontsize=8,
        )
    axes.spines.left.set_visible(True)
    write_atomically(path, lambda file: figure.savefig(file, format="png", metadata={"Software": SOFTWARE}))
