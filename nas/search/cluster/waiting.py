"""Reports once what trainings wait for: processors in use by others, or a node in place of a lost one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from nas.host.cores import usable_cores
from nas.host.words import counted
from nas.search.cluster import nodes
from nas.search.search import Workers

WAIT_SECONDS = 30.0  # time for the first training to begin before a line says what it waits for


class Waiting:
    """Reports what the trainings of a search wait for."""

    def __init__(self, workers: Workers, log: Callable[[str], None]) -> None:
        self._workers = workers
        self._log = log
        self._since: float | None = None  # when the first training was handed to Ray
        self._began = False
        needed = {"CPU": workers.threads, "GPU": workers.gpu_share}
        self._watcher = nodes.NodeWatcher(needed) if workers.joined else None
        self._reported = 0  # lost nodes
        self._says_missing = False

    def asked(self) -> None:
        """A training was handed to Ray."""
        self._since = self._since or time.monotonic()

    def begins(self) -> None:
        """A training begins."""
        self._began = True

    @property
    def lost_nodes(self) -> int:
        """Number of lost nodes that trained."""
        return 0 if self._watcher is None else len(self._watcher.lost)

    def look(self) -> str:
        """Report what is waited for, where that takes long. Returns the reason to give up if it takes too long, or an
        empty text.
        """
        if not self._began and self._since is not None and time.monotonic() >= self._since + WAIT_SECONDS:
            self._began = True
            self._log(self._for_the_first())
        if self._watcher is None:
            return ""
        missing = self._watcher.missing_seconds()
        for address in self._watcher.lost[self._reported :]:
            self._log(
                f"lost    the cluster's node {address}: others go on with its trainings, from the last finished epochs"
            )
        self._reported = len(self._watcher.lost)
        if missing and not self._says_missing:
            self._log(f"wait    for a node with {self._needed()}: the cluster has none any more; see `ray status`")
        self._says_missing = missing > 0
        if missing < nodes.LOST_SECONDS:
            return ""
        return f"the cluster has no node with {self._needed()} any more, and none came within {missing:.0f} s"

    def _needed(self) -> str:
        whole = "a GPU" if self._workers.per_gpu == 1 else f"1/{self._workers.per_gpu} of a GPU"
        gpu = f" and {whole}" if self._workers.device == "cuda" else ""
        return f"{counted(self._workers.threads, 'processor')}{gpu}"

    def _for_the_first(self) -> str:
        needed = self._needed()
        if self._workers.joined:
            return f"wait    for Ray to have {needed} free; see `ray status`"
        here = f"there are {usable_cores()} here, with a load of {os.getloadavg()[0]:.1f}"
        return f"wait    for a training to begin on {needed}: {here}; it begins sooner if less else runs"
