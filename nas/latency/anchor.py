"""The anchor: what the reference network takes on this device, measured once and kept.

It turns ratios into milliseconds (see `nas.latency.protocol` for what that means). One small YAML file per device,
runtime and its versions, precision, threads and input size lies in $XDG_CACHE_HOME/framebudget/anchors. Removing a file
makes the next measurement anchor anew.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nas.latency import load, protocol
from space import strict
from space.errors import UserError

BLOCKS = 9  # the median of their medians forgets up to four bad spells
BLOCK_SECONDS = 0.2
BLOCK_CALLS = 10  # at least
STEADY_BLOCKS = 0.25  # spread (max - min) / median of the blocks' medians above which the anchor is marked


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Latency of the reference network on one device."""

    milliseconds: float
    blocks_milliseconds: tuple[float, ...]  # the median of each block
    taken: str  # date and time, UTC
    device: Mapping[str, str]
    flagged: tuple[str, ...] = field(default=())


def folder() -> Path:
    """Where anchors are kept."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "framebudget" / "anchors"


def path_of(device: Mapping[str, str]) -> Path:
    """The anchor's file: a readable name, and a digest of everything that the latency of the reference hangs on."""
    digest = hashlib.sha256(json.dumps(dict(device), sort_keys=True).encode()).hexdigest()[:12]
    name = "-".join(device[key] for key in ("runtime", "precision", "size") if key in device)
    return folder() / f"{name}-{digest}.yaml"


def obtain(reference: Callable[[], object], device: Mapping[str, str], threads: int) -> Anchor:
    """The anchor kept for `device`, or a new one from timing `reference`. Call it inside `lane.alone()`.

    An anchor that was taken on a disturbed machine is kept, so that everybody uses the same milliseconds, and is
    replaced as soon as somebody measures on a quiet one.

    Raises: UserError when the folder cannot be written.
    """
    path = path_of(device)
    kept = read(path)
    if kept is not None and not kept.flagged:
        return kept
    fresh = take(reference, device, threads)
    if kept is not None and fresh.flagged:
        return kept
    write(path, fresh)
    return fresh


def take(reference: Callable[[], object], device: Mapping[str, str], threads: int) -> Anchor:
    """Time `reference` in blocks; twice when the first try was disturbed.

    On a quiet machine the anchor is the median of the blocks' medians. Others can only slow it down, so that on a
    disturbed one the fast calls tell more: there it is the tenth percentile of all calls, and marked.
    """
    protocol.warm_up(reference, reference)
    attempts = []
    for _ in range(2):
        before = load.snapshot()
        calls = [_block(reference) for _ in range(BLOCKS)]
        flagged = load.disturbances(before, load.snapshot(), threads)
        medians = [statistics.median(block) for block in calls]
        spread = (max(medians) - min(medians)) / statistics.median(medians)
        if spread > STEADY_BLOCKS:
            flagged += (f"its {BLOCKS} blocks spread by {spread:.0%}",)
        fast = statistics.quantiles([call for block in calls for call in block], n=10)[0]
        attempts.append((len(flagged), fast if flagged else statistics.median(medians), medians, flagged))
        if not flagged:
            break
    _, milliseconds, medians, flagged = min(attempts)
    return Anchor(
        milliseconds=milliseconds,
        blocks_milliseconds=tuple(medians),
        taken=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        device=dict(device),
        flagged=flagged,
    )


def read(path: Path) -> Anchor | None:
    """The anchor in a file, or None when there is none that can be used."""
    try:
        anchor = strict.parse(path.read_text(), Anchor, str(path))
    except (OSError, UserError, UnicodeDecodeError):  # a cache: what cannot be read is made again
        return None
    return anchor if anchor.milliseconds > 0 else None


def write(path: Path, anchor: Anchor) -> None:
    """Keep an anchor, whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(strict.dump(anchor))
        partial.replace(path)
    except OSError as error:
        raise UserError(
            f"cannot keep the device's anchor in {path.parent} ({error.strerror}); free space there, or set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from None


def _block(reference: Callable[[], object]) -> list[float]:
    """The calls of one block, each in milliseconds."""
    times: list[float] = []
    end = time.perf_counter() + BLOCK_SECONDS
    while len(times) < BLOCK_CALLS or time.perf_counter() < end:
        times.append(protocol.milliseconds(reference))
    return times
