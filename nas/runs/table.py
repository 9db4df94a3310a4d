"""The latency table that a run began with, kept in its folder so that tables made later cannot change its proposals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nas.latency.estimates.table import LatencyTable
from nas.runs.folder import TABLE, RunFolder
from nas.storage.files import write_text
from nas.storage.records import read_record
from space import strict


@dataclass(frozen=True, kw_only=True)
class BegunWith:
    """The latency table of the device when a run began."""

    table: LatencyTable | None = None
    """The table; None where there was none."""


def hold_to_table(run: RunFolder, kept: Callable[[], LatencyTable | None]) -> LatencyTable | None:
    """The table that the run began with, or None where it began with none. Where the run's folder has no record yet (a
    new run, or one of an earlier version), `kept` gives the table of the device, and that is recorded.

    Raises: UserError when the file is damaged.
    """
    file = run.root / TABLE
    if file.is_file():
        return read_record(file, "the latency table of a run", BegunWith).table
    found = kept()
    write_text(file, strict.dump(BegunWith(table=found)))
    return found
