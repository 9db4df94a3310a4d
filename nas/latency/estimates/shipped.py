"""Latency tables that come with the package, for runtimes whose layers cost much the same on all CPUs of a kind.

A price is kept as a share of what the reference network takes, which is measured on every device. At another input size
a layer and the reference grow alike. How far off that is at sizes and numbers of threads other than those that the
prices were found at, on the CPU on which they were found, is the table's `error`; on another CPU nobody has looked.
What is measured in a run corrects it (`nas.latency.estimates.estimator`). `studies/latency/shipped.py` makes the files
in `tables/`.
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
    """Prices of work in fp32 on CPUs, as shares of the latency of the reference network at one input size."""

    height: int
    width: int
    """Of the images at which the reference takes 1."""
    of_quantity: Mapping[str, float]
    """As `LatencyTable.milliseconds`."""
    of_unit: Mapping[str, float]
    """As `LatencyTable.unit_milliseconds`."""
    networks: int
    """How many measured ones they were found from."""
    error: float
    """Mean absolute error at other sizes and threads of the same CPU, before anything is measured, as a share."""
    source: str
    """Where and how they were measured."""

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1:
            raise UserError(f"expected a height and a width of at least 1, got {self.height}x{self.width}")
        if not min(self.of_quantity.values(), default=0) >= 0 <= min(self.of_unit.values(), default=0):
            raise UserError("expected shares of 0 or more")


def shipped_table(target: Target, size: tuple[int, int], reference_milliseconds: float) -> LatencyTable | None:
    """A table for input `size` (height, width) of a device whose reference network takes so long there; None where none
    comes with the package for such a target, and for other hosts, which may be of another kind.
    """
    file = TABLES / f"{target.runtime}.yaml"
    if target.host or target.on_cuda or target.precision != "fp32" or not file.is_file():
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
    """The `shipped_table` that estimates begin with where none is kept of a device, and what to say of that. In several
    precisions it is that of the first of `targets`.
    """
    first, *others = targets
    table = shipped_table(first, size, reference_milliseconds)
    if table is not None:
        too = f", in {' and '.join(each.precision for each in others)} too" if others else ""
        return table, (
            f"estimates begin with a table that comes with the package, {table.error:.0%} off on the CPU that it was "
            f"made on, and what is measured corrects them{too}; `nas measure --calibrate` makes one of this device"
        )
    if first.precision == "fp32":
        return None, ""
    return None, (
        f"no latency table comes with the package for {first.precision}: estimates begin with what is measured here; "
        "`nas measure --calibrate` makes one of this target"
    )
