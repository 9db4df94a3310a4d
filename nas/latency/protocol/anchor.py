"""The anchor: what the reference network usually takes on this device, measured once and kept.

It turns ratios into milliseconds, and says what the machine is like most of the time (`nas.latency.protocol`). A shared
machine has good spells: where the best one was anchored, a reference that took 1.3 to 1.5 of it for hours was never as
it was anchored, and every measurement waited in vain for that. So the best spell is kept beside what is usual.

One small file per device, runtime and its versions, precision, threads and input size lies in the folder `anchors` of
the cache. Removing a file makes the next measurement anchor anew. It holds JSON, which is YAML as well and needs only
the standard library: a host that is timed over ssh may have nothing else (`nas.latency.worker.agent`).
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

from nas.latency.machine import device_key, load
from nas.latency.protocol.controls import Controls, canary_milliseconds, milliseconds, warm_up
from nas.latency.protocol.quiet import quiet_median
from nas.storage.files import write_text
from space.errors import UserError

ANCHOR_BLOCKS = 12
BLOCK_SECONDS = 0.15
BLOCK_CALLS = 10  # at least
PAUSE_SECONDS = 0.25  # between blocks: a hypervisor may move our cores meanwhile
FEWEST_ALIKE = 4  # blocks in the machine's usual state, below which the anchor is flagged
AWAY = 8  # measurements in a row that found the machine elsewhere, after which it is anchored there,
AWAY_SECONDS = 120.0  # if they took so long: quick ones are over before many a neighbour is

FAR_FROM_ANCHOR = 1.15  # factor between two durations of the reference, from which on the machine is another
FAR_CANARY = 1.35  # the same of the canary's ratio to the reference; it doubles when cores share no cache
LATER = {"best_milliseconds", "away_milliseconds", "away_since_seconds"}  # which earlier versions did not write


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Latency of the reference network on one device, and what the canary takes beside it."""

    milliseconds: float
    """Of the reference, in the state that the machine usually is in."""
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
    """Of the reference, in the best spell that was seen when the device was anchored, then and before. None where an
    earlier version anchored, which took that for the usual."""
    away_milliseconds: tuple[float, ...] = ()
    """What the reference took in the last measurements, those in a row that found the machine elsewhere."""
    away_since_seconds: float | None = None
    """When the first of them ended, by this machine's clock that only goes forward."""

    def is_left(self, now_seconds: float) -> bool:
        """Whether the machine has been elsewhere so often and for so long that it is to be anchored anew."""
        since = self.away_since_seconds
        return len(self.away_milliseconds) >= AWAY and since is not None and now_seconds - since >= AWAY_SECONDS


def path_of(key: Mapping[str, str]) -> Path:
    """The anchor's file."""
    return device_key.folder("anchors") / f"{device_key.name_of(key)}.yaml"


def obtain(controls: Controls) -> Anchor:
    """The anchor kept for this device, or a new one from timing the reference. Call it inside `lane.exclusive()`.

    An anchor that was taken on a disturbed machine is kept, so that everybody uses the same milliseconds, and is
    replaced by the first one that is taken on a quiet machine.

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
    """The anchor after a measurement by it, and kept so where a file can be: what the reference took in that, where the
    machine was elsewhere; None where it was as it was anchored. What other processes noted counts, and where one has
    anchored anew meanwhile, it is that anchor. One whose file was removed is not written again.
    """
    current = read(path_of(kept.device))
    if current is None:
        return kept
    if (current.milliseconds, current.canary) != (kept.milliseconds, kept.canary):
        return current
    if away_milliseconds is None:
        fresh = replace(current, away_milliseconds=(), away_since_seconds=None)
    else:
        since = current.away_since_seconds
        fresh = replace(
            current,
            away_milliseconds=(*current.away_milliseconds, away_milliseconds)[-AWAY:],
            away_since_seconds=now_seconds if since is None or since > now_seconds else since,  # it was started anew
        )
    if fresh != current:
        with contextlib.suppress(UserError):  # the anchor itself is kept
            write(path_of(kept.device), fresh)
    return fresh


def renew(controls: Controls, kept: Anchor) -> Anchor:
    """A new anchor where the machine is elsewhere now than it was at `kept`, be it faster or slower, and nothing
    disturbs it; otherwise `kept`, to which it may come back.

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
    """Time the reference and the canary in blocks; twice when the first try was disturbed.

    The anchor is the median of the blocks in the machine's usual state. The best spell is the quiet median of all of
    them (`nas.latency.protocol.quiet`).
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
            flagged += (f"only {alike.sum()} of {ANCHOR_BLOCKS} blocks were alike",)
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
    """Which blocks are in the state that most of them are in: within a factor of `FAR_FROM_ANCHOR` of each other, and
    their canaries within `FAR_CANARY`. Of states with as many blocks the fastest.

    `medians` (blocks) of the reference in milliseconds, `canaries` (blocks) as ratios to it; the answer is (blocks).
    """
    fastest, least = np.sort(medians)[:, None, None], np.sort(canaries)[None, :, None]  # those of each state
    near = (fastest <= medians) & (medians <= FAR_FROM_ANCHOR * fastest)
    states = (near & (least <= canaries) & (canaries <= FAR_CANARY * least)).reshape(-1, len(medians))
    usual: NDArray[np.bool_] = states[states.sum(axis=1).argmax()]
    return usual


def text_of(anchor: Anchor) -> str:
    """The anchor as JSON; `of_text` gives an equal one back."""
    held = dataclasses.asdict(anchor)
    return json.dumps({name: value for name, value in held.items() if value is not None}, indent=1)


def of_text(text: str) -> Anchor:
    """The anchor whose `text_of` it is.

    Raises: ValueError when the text is not that of an anchor.
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
    """The anchor in a file, or None when there is none that can be used."""
    try:
        return of_text(path.read_text("utf-8"))
    except (OSError, ValueError, OverflowError):  # a cache: what cannot be read is made again
        return None


def write(path: Path, anchor: Anchor) -> None:
    """Keep an anchor, whole or not at all.

    Raises: UserError when the folder cannot be written.
    """
    try:
        write_text(path, text_of(anchor))
    except OSError as error:
        raise UserError(
            f"cannot keep the device's anchor in {path.parent} ({error.strerror}); free space there, or set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from None


def _block(controls: Controls) -> tuple[float, float]:
    """Median of the reference in milliseconds, and the canary's ratio to it."""
    times: list[float] = []
    end = controls.watch.seconds() + BLOCK_SECONDS
    while len(times) < BLOCK_CALLS or controls.watch.seconds() < end:
        times.append(milliseconds(controls.reference, controls.watch))
    reference = float(np.median(times))
    return reference, canary_milliseconds(controls) / reference
