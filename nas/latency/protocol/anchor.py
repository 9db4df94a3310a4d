"""The anchor: what the reference network takes on this device, measured once and kept.

It turns ratios into milliseconds, and says what the machine is like when it is itself (see
`nas.latency.protocol.alternation` for what both mean). One small YAML file per device, runtime and its versions,
precision, threads and input size lies in $XDG_CACHE_HOME/framebudget/anchors. Removing a file makes the next
measurement anchor anew.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.latency.machine import device_cache, load
from nas.latency.protocol import alternation
from nas.latency.protocol.quiet import quiet_median
from nas.latency.protocol.stand import Company, canary_milliseconds, milliseconds, warm_up
from nas.storage.files import write_text
from space import strict
from space.errors import UserError

BLOCKS = 12
BLOCK_SECONDS = 0.15
BLOCK_CALLS = 10  # at least
PAUSE_SECONDS = 0.25  # between blocks: whoever places our cores may place them anew
CLEARLY_BETTER = 0.85
FEWEST_ALIKE = 4  # blocks in the machine's best state, below which the anchor is marked


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Latency of the reference network on one device, and the canary's ratio to it."""

    milliseconds: float
    canary: float
    blocks_milliseconds: tuple[float, ...]  # the reference's median in each block
    blocks_canary: tuple[float, ...]
    taken: str  # date and time, UTC
    device: Mapping[str, str]
    flagged: tuple[str, ...] = field(default=())

    @property
    def normal(self) -> alternation.Normal:
        """The machine as it was."""
        return alternation.Normal(reference_milliseconds=self.milliseconds, canary=self.canary)


def path_of(device: Mapping[str, str]) -> Path:
    """The anchor's file."""
    return device_cache.folder("anchors") / f"{device_cache.name_of(device)}.yaml"


def obtain(company: Company, device: Mapping[str, str], threads: int) -> Anchor:
    """The anchor kept for `device`, or a new one from timing the reference. Call it inside `lane.alone()`.

    An anchor that was taken on a disturbed machine is kept, so that everybody uses the same milliseconds, and is
    replaced as soon as somebody measures on a quiet one.

    Raises: UserError when the folder cannot be written.
    """
    path = path_of(device)
    kept = read(path)
    if kept is not None and (not kept.flagged or _disturbed_now(company, threads)):
        return kept
    fresh = take(company, device, threads)
    if kept is not None and fresh.flagged:
        return kept
    write(path, fresh)
    return fresh


def renew(company: Company, kept: Anchor, threads: int) -> Anchor:
    """A new anchor for a machine that turned out better than `kept`, or `kept` when that was a passing moment.

    Raises: UserError when the folder cannot be written.
    """
    fresh = take(company, kept.device, threads)
    if fresh.milliseconds > CLEARLY_BETTER * kept.milliseconds and fresh.canary > CLEARLY_BETTER * kept.canary:
        return kept
    write(path_of(kept.device), fresh)
    return fresh


def take(company: Company, device: Mapping[str, str], threads: int) -> Anchor:
    """Time the reference and the canary in blocks; twice when the first try was disturbed.

    What disturbs a block, other processes or unlucky placement of virtual cores, can only slow it down. So the blocks
    that are nearly as good as the lower quartile, in both networks, are the machine itself, and the anchor is the
    quiet median of their medians.
    """
    warm_up(company.reference, company.canary, company.watch)
    attempts = []
    for _ in range(2):
        spans, medians, canaries = [], [], []
        for _ in range(BLOCKS):
            if threads > 1:
                company.watch.sleep(PAUSE_SECONDS)
            before = company.watch.snapshot("cpu")
            median, canary = _block(company)
            spans.append((before, company.watch.snapshot("cpu")))
            medians.append(median)
            canaries.append(canary)
        alike = best_state(np.asarray(medians), np.asarray(canaries))
        state = np.asarray(medians)[alike]
        flagged = load.disturbances(spans, threads)
        if alike.sum() < FEWEST_ALIKE:
            flagged += (f"only {alike.sum()} of {BLOCKS} blocks were alike",)
        anchored = quiet_median(state[:, None]), float(np.median(np.asarray(canaries)[alike]))
        attempts.append((len(flagged), anchored, medians, canaries, flagged))
        if not flagged:
            break
    _, (milliseconds, canary), medians, canaries, flagged = min(attempts)
    return Anchor(
        milliseconds=milliseconds,
        canary=canary,
        blocks_milliseconds=tuple(medians),
        blocks_canary=tuple(canaries),
        taken=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        device=dict(device),
        flagged=flagged,
    )


def _disturbed_now(company: Company, threads: int) -> bool:
    before = company.watch.snapshot("cpu")
    _block(company)
    return bool(load.disturbances([(before, company.watch.snapshot("cpu"))], threads))


def best_state(medians: NDArray[np.float64], canaries: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which blocks are within the protocol's bounds of the lower quartile, of both networks."""
    swift = medians <= alternation.FAR_FROM_ANCHOR * np.quantile(medians, 0.25)
    usual = float(np.quantile(canaries[swift], 0.25))
    best: NDArray[np.bool_] = (
        swift & (usual / alternation.FAR_CANARY <= canaries) & (canaries <= usual * alternation.FAR_CANARY)
    )
    return best


def read(path: Path) -> Anchor | None:
    """The anchor in a file, or None when there is none that can be used."""
    try:
        anchor = strict.parse(path.read_text("utf-8"), Anchor, str(path))
    except (OSError, UserError, UnicodeDecodeError):  # a cache: what cannot be read is made again
        return None
    return anchor if anchor.milliseconds > 0 else None


def write(path: Path, anchor: Anchor) -> None:
    """Keep an anchor, whole or not at all.

    Raises: UserError when the folder cannot be written.
    """
    try:
        write_text(path, strict.dump(anchor))
    except OSError as error:
        raise UserError(
            f"cannot keep the device's anchor in {path.parent} ({error.strerror}); free space there, or set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from None


def _block(company: Company) -> tuple[float, float]:
    """Median of the reference in milliseconds, and the canary's ratio to it."""
    times: list[float] = []
    end = company.watch.seconds() + BLOCK_SECONDS
    while len(times) < BLOCK_CALLS or company.watch.seconds() < end:
        times.append(milliseconds(company.reference, company.watch))
    reference = float(np.median(times))
    return reference, canary_milliseconds(company) / reference
