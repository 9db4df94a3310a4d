"""How well a latency table estimates networks left out of its fit, compared with multiply-adds and parameters."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from nas.latency.estimates.calibration import Calibration, LeftOut, error_of
from nas.report.drawing import look
from nas.report.palette import LIGHT
from nas.storage.files import write_atomically, write_text
from nas.surrogate.agreement import kendall_tau
from nas.terminal import table

ESTIMATES = "calibration.csv"
PICTURE = "calibration.png"
COLUMNS = ("network", "measured_milliseconds", "estimated_milliseconds", "multiply_adds", "parameters")
SOFTWARE = "nas measure"
MARKS: Mapping[str, str] = {ESTIMATES: ",".join(COLUMNS), PICTURE: f"Software\0{SOFTWARE}"}
"""Text that identifies a file of an earlier calibration; only such files are replaced."""
PROXIES: Mapping[str, Callable[[LeftOut], float]] = {  # often used in place of measured latency
    "multiply-adds": lambda each: each.multiply_adds,
    "parameters": lambda each: each.parameters,
}


def comparison(left_out: Sequence[LeftOut]) -> str:
    """Mean absolute error and Kendall's tau of the table's estimates, and of proxies times the best single factor."""
    rows = [("latency table", f"{error_of(left_out):.1%}", _tau(left_out, lambda each: each.estimated_milliseconds))]
    for name, proxy in PROXIES.items():
        ratios = [proxy(each) / each.measured_milliseconds for each in left_out]
        error = statistics.fmean(abs(ratio / statistics.median(ratios) - 1) for ratio in ratios)
        rows.append((name, f"{error:.1%}", _tau(left_out, proxy)))
    return table(rows, ("estimate by", "mean abs error", "Kendall tau"))


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write the estimates as CSV, and a picture of them.

    Raises: UserError when the table there is of another kind.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for each in calibration.left_out:
        milliseconds = (f"{each.measured_milliseconds:.4f}", f"{each.estimated_milliseconds:.4f}")
        writer.writerow((each.name, *milliseconds, each.multiply_adds, each.parameters))
    write_text(folder / ESTIMATES, text.getvalue(), mark=MARKS[ESTIMATES])
    _draw(folder / PICTURE, calibration)


def _tau(left_out: Sequence[LeftOut], proxy: Callable[[LeftOut], float]) -> str:
    tau = kendall_tau([(proxy(each), each.measured_milliseconds) for each in left_out])
    return "-" if tau is None else f"{tau:.3f}"


def _draw(path: Path, calibration: Calibration) -> None:
    measured = [each.measured_milliseconds for each in calibration.left_out]
    with look():
        figure = Figure(figsize=(12, 5.52), layout="constrained", dpi=100, facecolor=LIGHT["ground"], frameon=True)
        left, right = figure.subplots(1, 2)
        ends = (0.8 * min(measured), 1.25 * max(measured))
        left.plot(ends, ends, color=LIGHT["soft"], linewidth=1)
        band = [[share * end for end in ends] for share in (0.9, 1.1)]
        left.fill_between(ends, *band, color=LIGHT["soft"], alpha=0.12, linewidth=0)
        estimated = [each.estimated_milliseconds for each in calibration.left_out]
        left.scatter(measured, estimated, s=14, color=LIGHT["guided"])
        left.set_ylabel("estimated by the latency table, milliseconds")
        left.set_title(f"mean absolute error {calibration.table.error:.1%} (band: 10 %)")
        right.scatter(
            measured, [each.multiply_adds / 1e9 for each in calibration.left_out], s=14, color=LIGHT["company"]
        )
        right.set_ylabel("multiply-adds, 10^9")
        right.set_title("the same networks by a FLOPs proxy")
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel="measured, milliseconds")
            axes.spines.left.set_visible(True)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(StrMethodFormatter("{x:g}"))
                axis.set_minor_formatter(NullFormatter())
        figure.suptitle(
            f"{len(measured)} random networks left out of the fit: {calibration.table.target}, "
            f"{calibration.table.height}x{calibration.table.width}"
        )
        write_atomically(path, lambda file: figure.savefig(file, format="png", metadata={"Software": SOFTWARE}))
