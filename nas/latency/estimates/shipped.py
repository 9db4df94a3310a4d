"""Latency tables that come with the package, for runtimes whose layers cost much the same on all CPUs of a kind.

A price is stored as a share of the latency of the reference network, which is measured on every device. At other input
sizes, a layer and the reference grow alike. The table's `error` is that of its estimates at other sizes and numbers of
threads, on the CPU where the prices were found; other CPUs were not tested. Measurements made during a run correct the
table (`nas.latency.estimates.estimator`). `studies/latency/shipped.py` makes the files in `tables/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.latency.estimates.table import LatencyTable
from nas.latency.target import Target
from nas.storage.records import read_record
from space import UserError

TABLES = Path(__file__).with_name("tables")


@dataclass(frozen=True, kw_only=True)
class SharesOfReference:
    """Prices of work on CPUs, as shares of the latency of the reference network at one input size."""

    height: int
    """Height of that input size."""
    width: int
    """Width of that input size."""
    of_quantity: Mapping[str, float]
    """Price of each quantity of work, as in `LatencyTable.milliseconds`."""
    of_unit: Mapping[str, float]
    """Price per unit of other quantities, as in `LatencyTable.unit_milliseconds`."""
    networks: int
    """Number of measured networks that the prices were fitted to."""
    error: float
    """Mean absolute error of uncorrected estimates at other sizes and threads of the same CPU, as a share."""
    source: str
    """Where and how the networks were measured."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise UserError(f"expected a height and a width of at least 1, got {self.height}x{self.width}")
        if not min(self.of_quantity.values(), default=0) >= 0 <= min(self.of_unit.values(), default=0):
            raise UserError("expected shares of 0 or more")


def shipped_table(target: Target, size: tuple[int, int], reference_milliseconds: float) -> LatencyTable | None:
    """The table for input `size` (height, width) on a device where the reference takes `reference_milliseconds` at that
    size; None if the package has none for such a target, and for other hosts, which may be of another kind.
    """
    precision = "" if target.precision == "fp32" else f"-{target.precision}"
    file = TABLES / f"{target.runtime}{precision}.yaml"
    if target.host or target.on_cuda or not file.is_file():
        return None
    known = read_record(file, "a latency table of this package", SharesOfReference)
    scale = reference_milliseconds * known.height * known.width / (size[0] * size[1])
    return LatencyTable(
        target=str(target),
        height=size[0],
        width=size[1],
        milliseconds={quantity: share * scale for quantity, share in known.of_quantity.items()},
        unit_milliseconds={unit: share * scale for unit, share in known.of_unit.items()},
        networks=known.networks,
        seconds=0.0,
        error=known.error,
        environment={"measured": known.source},
        reference_milliseconds=reference_milliseconds,
    )


def table_instead(
    targets: Sequence[Target], size: tuple[int, int], reference_milliseconds: float
) -> tuple[LatencyTable | None, str]:
    """The `shipped_table` to start with if a device has no table of its own, and a sentence about it to print. With
    several precisions it is the table of the first of `targets`.
    """
    first, *others = targets
    table = shipped_table(first, size, reference_milliseconds)
    if table is not None:
        too = f", in {' and '.join(target.precision for target in others)} too" if others else ""
        return table, (
            f"estimates begin with a table that comes with the package, {table.error:.0%} off on the CPU that it was "
            f"made on, and measurements correct them{too}; `nas measure --calibrate` makes a table of this device"
        )
    if first.precision == "fp32":
        return None, ""
    return None, (
        f"no latency table comes with the package for {first.precision}: estimates begin with measurements made here; "
        "`nas measure --calibrate` makes a table of this target"
    )
