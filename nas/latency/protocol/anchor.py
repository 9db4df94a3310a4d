"""The anchor: what the reference network takes on this device, measured once and kept.

It turns ratios into milliseconds, and says what the machine is like when nothing disturbs it (`nas.latency.protocol`).
One small file per device, runtime and its versions, precision, threads and input size lies in the folder `anchors` of
the cache. Removing a file makes the next measurement anchor anew. It holds JSON, which is YAML as well and needs only
the standard library: a host that is timed over ssh may have nothing else (`nas.latency.worker.agent`).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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
CLEARLY_BETTER = 0.85
FEWEST_ALIKE = 4  # blocks in the machine's best state, below which the anchor is flagged

FAR_FROM_ANCHOR = 1.15  # factor between two durations of the reference, from which on the machine is another
FAR_CANARY = 1.35  # the same of the canary's ratio to the reference; it doubles when cores share no cache


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """Latency of the reference network on one device, and what the canary takes beside it."""

    milliseconds: float
    """Of the reference: the quiet median."""
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


def path_of(key: Mapping[str, str]) -> Path:
    """The anchor's file."""
    return device_key.folder("anchors") / f"{device_key.name_of(key)}.yaml"


def obtain(controls: Controls) -> Anchor:
    """The anchor kept for this device, or a new one from timing the reference. Call it inside `lane.alone()`.

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


def renew(controls: Controls, kept: Anchor) -> Anchor:
    """A new anchor where the machine is clearly better than it was at `kept`; otherwise `kept`.

    Raises: UserError when the folder cannot be written.
    """
    fresh = take(controls)
    if fresh.milliseconds > CLEARLY_BETTER * kept.milliseconds and fresh.canary > CLEARLY_BETTER * kept.canary:
        return kept
    write(path_of(controls.key), fresh)
    return fresh


def take(controls: Controls) -> Anchor:
    """Time the reference and the canary in blocks; twice when the first try was disturbed.

    What disturbs a block, other processes or unlucky placement of virtual cores, can only slow it down. So the blocks
    that are nearly as good as the lower quartile, in both networks, are the machine itself, and the anchor is the
    quiet median of their medians.
    """
    threads, watch = controls.threads, controls.watch
    warm_up(controls.reference, controls.canary, watch)
    attempts = []
    for _ in range(2):
        spans, medians, canaries = [], [], []
        for _ in range(ANCHOR_BLOCKS):
            if threads > 1:
                watch.sleep(PAUSE_SECONDS)
            before = watch.snapshot("cpu")
            median, canary = _block(controls)
            spans.append((before, watch.snapshot("cpu")))
            medians.append(median)
            canaries.append(canary)
        alike = best_state(np.asarray(medians), np.asarray(canaries))
        flagged = load.disturbances(spans, threads, neighbours=controls.device == "cpu")
        if alike.sum() < FEWEST_ALIKE:
            flagged += (f"only {alike.sum()} of {ANCHOR_BLOCKS} blocks were alike",)
        used = alike if alike.any() else np.ones_like(alike)
        anchored = quiet_median(np.asarray(medians)[used, None]), float(np.median(np.asarray(canaries)[used]))
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
    )


def _disturbed_now(controls: Controls) -> bool:
    before = controls.watch.snapshot("cpu")
    _block(controls)
    span = before, controls.watch.snapshot("cpu")
    return bool(load.disturbances([span], controls.threads, neighbours=controls.device == "cpu"))


def best_state(medians: NDArray[np.float64], canaries: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which blocks are near the lower quartile, of both networks: within `FAR_FROM_ANCHOR` and `FAR_CANARY`.

    `medians` (blocks) of the reference in milliseconds, `canaries` (blocks) as ratios to it; the answer is (blocks).
    It may be none of them, where the lower quartile lies between two states of the machine.
    """
    swift = medians <= FAR_FROM_ANCHOR * np.quantile(medians, 0.25)
    usual = float(np.quantile(canaries[swift], 0.25))
    best: NDArray[np.bool_] = swift & (usual / FAR_CANARY <= canaries) & (canaries <= usual * FAR_CANARY)
    return best


def text_of(anchor: Anchor) -> str:
    """The anchor as JSON; `of_text` gives an equal one back."""
    return json.dumps(dataclasses.asdict(anchor), indent=1)


def of_text(text: str) -> Anchor:
    """The anchor whose `text_of` it is.

    Raises: ValueError when the text is not that of an anchor.
    """
    try:
        held = json.loads(text)
    except RecursionError:
        raise ValueError("expected an anchor, got JSON that is nested too deeply") from None
    if not isinstance(held, dict) or held.keys() != {each.name for each in dataclasses.fields(Anchor)}:
        raise ValueError("expected the fields of an anchor")
    return Anchor(
        milliseconds=_positive(held["milliseconds"]),
        canary=_positive(held["canary"]),
        blocks_milliseconds=tuple(_positive(each) for each in _list(held["blocks_milliseconds"])),
        blocks_canary=tuple(_positive(each) for each in _list(held["blocks_canary"])),
        taken=_word(held["taken"]),
        device={_word(name): _word(value) for name, value in _mapping(held["device"]).items()},
        flagged=tuple(_word(each) for each in _list(held["flagged"])),
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
