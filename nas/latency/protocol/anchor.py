"""The anchor: the usual latency of the reference network on this device, measured once and kept.

It turns ratios into milliseconds and describes the machine's usual state (`nas.latency.protocol`). The usual state is
not the best one: a shared machine has good spells, and one that was anchored in its best spell ran the reference at 1.3
to 1.5 times that latency for hours, so that every measurement waited in vain. The best spell is recorded besides.

There is one small file per device, runtime and its versions, precision, threads and input size, in the folder `anchors`
of the cache. Removing a file makes the next measurement anchor anew. A file holds JSON, which is also YAML and needs
only the standard library: a host that is timed over ssh may have nothing else (`nas.latency.worker.agent`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.host.words import counted
from nas.latency.machine import device_key, load
from nas.latency.protocol.controls import Controls, canary_milliseconds, milliseconds, warm_up
from nas.latency.protocol.quiet import quiet_median
from nas.storage.files import write_text
from space.errors import UserError

ANCHOR_BLOCKS = 12
BLOCK_SECONDS = 0.15
BLOCK_CALLS = 10  # fewest in a block
PAUSE_SECONDS = 0.25  # between blocks, so that a hypervisor may move our cores
FEWEST_ALIKE = 4  # blocks in the machine's usual state; with fewer the anchor is flagged
AWAY = 8  # measurements in a row away from the anchored state after which the machine is anchored anew,
AWAY_SECONDS = 120.0  # provided they span this long: a series of quick ones may fall into a single disturbance

FAR_FROM_ANCHOR = 1.15  # factor between two latencies of the reference above which the machine's state differs
FAR_CANARY = 1.35  # the same for the canary's ratio to the reference, which doubles when cores share no cache
LATER = {"best_milliseconds", "away_milliseconds", "away_since_seconds"}  # fields that earlier versions did not write


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Latency of the reference network on one device, and the canary's ratio to it."""

    milliseconds: float
    """Latency of the reference in the machine's usual state."""
    canary: float
    """Ratio of the canary's duration to the reference's."""
    blocks_milliseconds: tuple[float, ...]
    """The reference's median in each block."""
    blocks_canary: tuple[float, ...]
    """The canary's ratio in each block."""
    taken: str
    """Date and time, UTC."""
    device: Mapping[str, str]
    """Key of the device (`nas.latency.machine.device_key`)."""
    flagged: tuple[str, ...] = field(default=())
    """Why not to trust it; empty when the machine was quiet."""
    best_milliseconds: float | None = None
    """Latency of the reference in the best spell seen at this and earlier anchorings of the device. None in files of
    earlier versions, which took the best spell as the anchor."""
    away_milliseconds: tuple[float, ...] = ()
    """Latencies of the reference in the latest measurements in a row that found the machine away from its anchor."""
    away_since_seconds: float | None = None
    """When the first of these measurements ended, by this machine's monotonic clock."""

    def is_left(self, now_seconds: float) -> bool:
        """Whether the machine has been away from its anchor often and long enough to be anchored anew."""
        since = self.away_since_seconds
        return len(self.away_milliseconds) >= AWAY and since is not None and now_seconds - since >= AWAY_SECONDS


def path_of(key: Mapping[str, str]) -> Path:
    """The anchor's file."""
    return device_key.folder("anchors") / f"{device_key.name_of(key)}.yaml"


def obtain(controls: Controls) -> Anchor:
    """The anchor kept for this device, or a new one from timing the reference. Call it inside `lane.exclusive()`.

    An anchor taken on a disturbed machine is kept too, so that all measurements use the same milliseconds, and is
    replaced by the first one taken on a quiet machine.

    Raises: UserError when the folder cannot be written.
    """
    path = path_of(controls.key)
    kept = read(path)
    if kept is not None and (not kept.flagged or _disturbed_now(controls)):
        return kept
    fresh = take(controls)
    if kept is not None and fresh.flagged:
        return kept
    write(path, fresh)
    return fresh


def noted(kept: Anchor, away_milliseconds: float | None, now_seconds: float) -> Anchor:
    """The anchor updated after a measurement that used it, and saved if its file can be written.

    `away_milliseconds`: latency of the reference if the machine was away from its anchor, None if it was not. Updates
    by other processes are taken into account: if one of them has anchored anew, its anchor is the result. A file that
    was removed is not written again.
    """
    current = read(path_of(kept.device))
    if current is None:
        return kept
    if (current.milliseconds, current.canary) != (kept.milliseconds, kept.canary):
        return current
    if away_milliseconds is None:
        fresh = replace(current, away_milliseconds=(), away_since_seconds=None)
    else:
        since = current.away_since_seconds  # in the future if the machine was restarted since
        fresh = replace(
            current,
            away_milliseconds=(*current.away_milliseconds, away_milliseconds)[-AWAY:],
            away_since_seconds=now_seconds if since is None or since > now_seconds else since,
        )
    if fresh != current:
        with contextlib.suppress(UserError):  # the anchor itself is still valid
            write(path_of(kept.device), fresh)
    return fresh


def renew(controls: Controls, kept: Anchor) -> Anchor:
    """A new anchor if the machine is now faster or slower than at `kept` and nothing disturbs it; otherwise `kept`, to
    whose state the machine may return.

    Raises: UserError when the folder cannot be written.
    """
    fresh = take(controls)
    moved = not _alike(fresh.milliseconds, kept.milliseconds, FAR_FROM_ANCHOR)
    if controls.threads > 1:
        moved = moved or not _alike(fresh.canary, kept.canary, FAR_CANARY)
    if moved and not fresh.flagged:
        best = min(each.best_milliseconds or each.milliseconds for each in (fresh, kept))
        renewed = replace(fresh, best_milliseconds=best)
    else:
        renewed = replace(kept, away_milliseconds=(), away_since_seconds=None)
    write(path_of(controls.key), renewed)
    return renewed


def _alike(one: float, other: float, factor: float) -> bool:
    return 1 / factor <= one / other <= factor


def take(controls: Controls) -> Anchor:
    """Time the reference and the canary in blocks, a second time if the first attempt was disturbed.

    The anchor is the median of the blocks in the machine's usual state. The best spell is the quiet median of all
    blocks (`nas.latency.protocol.quiet`).
    """
    threads, watch = controls.threads, controls.watch
    warm_up(controls.reference, controls.canary, watch)
    attempts = []
    for _ in range(2):
        spans, medians, canaries = [], [], []
        for _ in range(ANCHOR_BLOCKS):
            if threads > 1:
                watch.sleep(PAUSE_SECONDS)
            before = watch.snapshot(controls.device)
            median, canary = _block(controls)
            spans.append((before, watch.snapshot(controls.device)))
            medians.append(median)
            canaries.append(canary)
        alike = usual_state(np.asarray(medians), np.asarray(canaries))
        flagged = load.disturbances(spans, threads, neighbours=controls.device == "cpu")
        if alike.sum() < FEWEST_ALIKE:
            all_of = f"of {ANCHOR_BLOCKS} blocks"
            flagged += (f"only {counted(int(alike.sum()), f'{all_of} was', f'{all_of} were')} alike",)
        anchored = float(np.median(np.asarray(medians)[alike])), float(np.median(np.asarray(canaries)[alike]))
        attempts.append((len(flagged), anchored, medians, canaries, flagged))
        if not flagged:
            break
    _, (reference, canary), medians, canaries, flagged = min(attempts)
    return Anchor(
        milliseconds=reference,
        canary=canary,
        blocks_milliseconds=tuple(medians),
        blocks_canary=tuple(canaries),
        taken=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        device=dict(controls.key),
        flagged=flagged,
        best_milliseconds=quiet_median(np.asarray(medians)[:, None]),
    )


def _disturbed_now(controls: Controls) -> bool:
    before = controls.watch.snapshot(controls.device)
    _block(controls)
    span = before, controls.watch.snapshot(controls.device)
    return bool(load.disturbances([span], controls.threads, neighbours=controls.device == "cpu"))


def usual_state(medians: NDArray[np.float64], canaries: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which blocks (blocks) are in the most common state of the machine. Blocks share a state if the medians of the
    reference lie within a factor of `FAR_FROM_ANCHOR` of each other and those of the canary within `FAR_CANARY`. If two
    states have equally many blocks, the faster one is chosen.

    `medians` (blocks): of the reference, in milliseconds. `canaries` (blocks): ratios of the canary to the reference.
    """
    fastest, least = np.sort(medians)[:, None, None], np.sort(canaries)[None, :, None]  # of each possible state
    near = (fastest <= medians) & (medians <= FAR_FROM_ANCHOR * fastest)
    states = (near & (least <= canaries) & (canaries <= FAR_CANARY * least)).reshape(-1, len(medians))
    usual: NDArray[np.bool_] = states[states.sum(axis=1).argmax()]
    return usual


def text_of(anchor: Anchor) -> str:
    """The anchor as JSON, which `of_text` reads back."""
    held = dataclasses.asdict(anchor)
    return json.dumps({name: value for name, value in held.items() if value is not None}, indent=1)


def of_text(text: str) -> Anchor:
    """The anchor that `text_of` wrote as `text`.

    Raises: ValueError when the text is not an anchor.
    """
    try:
        held = json.loads(text)
    except RecursionError:
        raise ValueError("expected an anchor, got JSON that is nested too deeply") from None
    names = {each.name for each in dataclasses.fields(Anchor)}
    if not isinstance(held, dict) or not names - LATER <= held.keys() <= names:
        raise ValueError("expected the fields of an anchor")
    return Anchor(
        milliseconds=_positive(held["milliseconds"]),
        canary=_positive(held["canary"]),
        blocks_milliseconds=tuple(_positive(each) for each in _list(held["blocks_milliseconds"])),
        blocks_canary=tuple(_positive(each) for each in _list(held["blocks_canary"])),
        taken=_word(held["taken"]),
        device={_word(name): _word(value) for name, value in _mapping(held["device"]).items()},
        flagged=tuple(_word(each) for each in _list(held["flagged"])),
        best_milliseconds=_positive(held["best_milliseconds"]) if "best_milliseconds" in held else None,
        away_milliseconds=tuple(_positive(each) for each in _list(held.get("away_milliseconds", []))),
        away_since_seconds=_positive(held["away_since_seconds"]) if "away_since_seconds" in held else None,
    )


def _positive(value: Any) -> float:
    if type(value) not in (int, float) or not 0 < value < math.inf:
        raise ValueError("expected a positive number")
    return float(value)


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    return value


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("expected a list")
    return value


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("expected a mapping")
    return value


def read(path: Path) -> Anchor | None:
    """The anchor in a file; None if the file is missing or unusable."""
    try:
        return of_text(path.read_text("utf-8"))
    except (OSError, ValueError, OverflowError):  # a cache: an unreadable anchor is taken anew
        return None


def write(path: Path, anchor: Anchor) -> None:
    """Save an anchor atomically.

    Raises: UserError when the folder cannot be written.
    """
    try:
        write_text(path, text_of(anchor))
    except OSError as error:
        raise UserError(
            f"cannot keep the device's anchor in {path.parent} ({error.strerror}); make room there, or set "
            "XDG_CACHE_HOME to a folder that can be written to"
        ) from None


def _block(controls: Controls) -> tuple[float, float]:
    """The reference's median in milliseconds, and the canary's ratio to it."""
    times: list[float] = []
    end = controls.watch.seconds() + BLOCK_SECONDS
    while len(times) < BLOCK_CALLS or controls.watch.seconds() < end:
        times.append(milliseconds(controls.reference, controls.watch))
    reference = float(np.median(times))
    return reference, canary_milliseconds(controls) / reference
