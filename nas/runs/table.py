"""The latency table that a run began with, kept in its folder: what is proposed depends on none that is made later."""

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
    """What was kept of the device when a run began."""

    table: LatencyTable | None = None
    """None where there was none."""


def hold_to_table(run: RunFolder, kept: Callable[[], LatencyTable | None]) -> LatencyTable | None:
    """The table that the run began with, or None where it began with none; `kept` gives the one of the device, which is
    asked where the run's folder does not say yet (a new run, or one of an earlier version).

    Raises: UserError when the file is damaged.
    """
    file = run.root / TABLE
    if file.is_file():
        return read_record(file, "the latency table that a run began with", BegunWith).table
    found = kept()
    write_text(file, strict.dump(BegunWith(table=found)))
    return found
