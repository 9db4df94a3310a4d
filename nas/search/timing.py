"""What a search times with: a meter that also gives the latency table kept for its device, if there is one.

On a cluster both come from the node that times (`nas.search.cluster_timing`), else from this machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Protocol

from nas.latency import Meter
from nas.latency.estimates import calibration
from nas.latency.estimates.table import LatencyTable
from nas.latency.meter import Measures


class Timing(Measures, Protocol):
    """What times architectures on one device, and knows its latency table."""

    def kept_table(self) -> LatencyTable | None:
        """The table that the machine which times keeps of the device, or None when it has none that can be used."""


TimingOf = Callable[..., contextlib.AbstractContextManager[Timing]]
"""Makes a timing for a target, an input size (H, W), a number of classes and `patience_seconds`."""


class LocalTiming(Meter):
    """A `Meter`, and the table that this machine keeps of its device."""

    def kept_table(self) -> LatencyTable | None:
        """See `Timing.kept_table`."""
        return calibration.kept_table(self)
