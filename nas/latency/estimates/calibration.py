"""Calibration: a `LatencyTable` of a device from random networks measured on it, and how well it estimates others.

The networks are drawn from the whole space, not from a study's, and at widths from a twentieth of what was drawn to all
of it, as a search tries them. What was measured is kept line by line beside the table, in the folder `tables` of the
cache, so that an interrupted calibration goes on where it was, a longer one adds to a shorter one, and the next one
measures again what was disturbed, but does not try again what the target refuses. Every fourth network is left out of
the fit to judge the table by; the table that is kept is fitted to all of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import space
from nas.latency.careful import is_refusal, time_each
from nas.latency.estimates.prices import fit_prices
from nas.latency.estimates.table import LatencyTable, Prices
from nas.latency.estimates.work import work_of
from nas.latency.machine import device_key
from nas.latency.meter import Meter
from nas.latency.protocol import anchor
from nas.latency.record import Latency
from nas.storage.files import write_text
from nas.storage.records import cached_record
from nas.terminal import Progress
from space import strict
from space.architecture import Architecture
from space.errors import UserError
from space.scale import scale_width
from space.search_space import Space

NETWORKS = 550
FEWEST = 20  # to fit anything to
TOGETHER = 4  # networks that take turns
SAMPLES_WITHIN = 0.03  # of each latency
NARROWEST = 0.05  # width factor
MOST_MULTIPLY_ADDS = 70_000  # per pixel of the image; ERFNet has 56,000
MOST_DRAWS = 100  # of which none becomes so small, before the input is too small for any
LEFT_OUT_EVERY = 4  # every fourth network is left out of the fit
FEWER = 0.9  # of the networks of a kept table: one fitted to less does not replace it
TABLE, SAMPLES, REFUSED = "table.yaml", "samples.jsonl", "refused.jsonl"  # in the folder of the device


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What is kept of a draw."""

    index: int
    """Of the draw."""
    key: str
    """Of the architecture: a draw that has changed since is not used."""
    num_classes: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """That it had; what has others is not used, nor where an earlier version did not say."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork(Drawn):
    """One measured network: the draw that it is, and what came out.

    Raises: UserError when the ratio or the anchor is not positive.
    """

    ratio: float
    """Of its latency to the reference network's."""
    reference_milliseconds: float
    """The anchor."""
    seconds: float
    """That measuring it took."""
    flagged: bool
    """Whether the machine was disturbed."""

    def __post_init__(self) -> None:
        if not min(self.ratio, self.reference_milliseconds) > 0:
            raise UserError(
                f"expected positive latencies, got {self.ratio} x {self.reference_milliseconds} ms; measure again"
            )


@dataclass(frozen=True, kw_only=True)
class RefusedNetwork(Drawn):
    """A network that the target cannot time, although it does others."""

    reason: str


Kept = TypeVar("Kept", bound=Drawn)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A network that was left out of the fit, and what a table fitted to the others estimates for it."""

    name: str
    measured_milliseconds: float
    estimated_milliseconds: float
    multiply_adds: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A table fitted to all networks, and estimates of left-out ones by a table fitted to the others."""

    table: LatencyTable
    left_out: tuple[LeftOut, ...]
    flagged: int
    """Measurements that were not used, since the machine was disturbed."""
    refused: tuple[str, ...]
    """Why networks were not measured: the target cannot time them."""
    better: LatencyTable | None
    """The table that stays, since it was fitted to more networks; None where this one is kept."""


def draw(index: int, size: tuple[int, int], num_classes: int) -> Architecture:
    """The network number `index` for input `size`: a random one of the whole space, narrower at random.

    Raises: UserError for an input so small that nothing is cheap enough for it.
    """
    chance = random.Random(f"calibration {index}")
    most = MOST_MULTIPLY_ADDS * size[0] * size[1]
    for _ in range(MOST_DRAWS):
        drawn = Space(size=size).sample(chance)
        architecture = scale_width(drawn, math.exp(chance.uniform(math.log(NARROWEST), 0.0)))
        while space.multiply_adds(architecture, size, num_classes) > most:
            narrower = scale_width(architecture, 0.7)
            if narrower == architecture:
                break  # it cannot become small enough: another one
            architecture = narrower
        else:
            return architecture
    raise UserError(f"expected an input that networks fit, got {size[0]}x{size[1]}; calibrate at a larger one")


def measure_networks(meter: Meter, networks: int, progress: Progress) -> list[str]:
    """Measure the first `networks` draws that have not been measured undisturbed on this device, nor refused by it, and
    keep the results; `progress` hears of them. Why some could not be measured this time, such as for want of memory.

    Raises: UserError when the folder of tables cannot be written, or the target times nothing at all.
    """
    undisturbed = [sample for sample in read_samples(meter) if not sample.flagged]
    known = {each.index for each, _ in _drawn_now(meter, [*undisturbed, *read_refused(meter)])}
    missing = [index for index in range(networks) if index not in known]
    failed: list[str] = []
    with progress.over("measured", networks, unit="networks", done=networks - len(missing)):
        for start in range(0, len(missing), TOGETHER):
            indices = missing[start : start + TOGETHER]
            found, reasons = _measure(meter, indices)
            _keep(meter, found)
            failed += reasons
            progress.count(len(indices))
    return failed


def calibrate(meter: Meter) -> Calibration:
    """Fit a table to all networks measured on this device, judge it, and keep it unless one of more networks is kept.

    Raises: UserError when there are too few.
    """
    kept = _drawn_now(meter, read_samples(meter))
    used = [(sample, architecture) for sample, architecture in kept if not sample.flagged]
    if len(used) < FEWEST:
        raise UserError(
            f"expected at least {FEWEST} undisturbed measurements to fit a table to, got {len(used)}; measure more "
            "networks, with the machine left alone"
        )
    anchored = used[-1][0].reference_milliseconds  # in the newest one: those before it may be by an earlier anchor
    used.sort(key=lambda pair: pair[0].index)
    prices, left_out = fit_and_judge(used, meter.size, meter.num_classes, anchored)
    table = LatencyTable(
        target=str(meter.target),
        height=meter.size[0],
        width=meter.size[1],
        milliseconds={name: price * anchored for name, price in prices.of_quantity.items()},
        unit_milliseconds={name: price * anchored for name, price in prices.of_unit.items()},
        networks=len(used),
        seconds=statistics.fmean(sample.seconds for sample, _ in used),
        error=error_of(left_out),
        environment=meter.environment,
        reference_milliseconds=anchored,
    )
    before = cached_record(_folder(meter) / TABLE, LatencyTable)
    better = before if before is not None and table.networks < FEWER * before.networks else None
    if better is None:
        write_text(_folder(meter) / TABLE, strict.dump(table))
    refused = tuple(each.reason for each, _ in _drawn_now(meter, read_refused(meter)))
    return Calibration(table=table, left_out=left_out, flagged=len(kept) - len(used), refused=refused, better=better)


def fit_and_judge(
    measured: Sequence[tuple[MeasuredNetwork, Architecture]],
    size: tuple[int, int],
    num_classes: int,
    anchored: float,
) -> tuple[Prices, tuple[LeftOut, ...]]:
    """Prices of work fitted to all networks that were measured at input `size` (height, width), as shares of what the
    reference takes; and every fourth of these networks, with what a fit to the others estimates for it where the
    reference takes `anchored` milliseconds.
    """
    works = [work_of(architecture, size, num_classes) for _, architecture in measured]
    ratios = [sample.ratio for sample, _ in measured]
    inside = [place for place in range(len(measured)) if place % LEFT_OUT_EVERY]
    judge = fit_prices([works[place] for place in inside], [ratios[place] for place in inside])
    left_out = tuple(
        LeftOut(
            name=f"draw {sample.index}",
            measured_milliseconds=sample.ratio * anchored,
            estimated_milliseconds=judge.sum(work) * anchored,
            multiply_adds=space.multiply_adds(architecture, size, num_classes),
            parameters=space.parameters(architecture, num_classes),
        )
        for (sample, architecture), work in list(zip(measured, works, strict=True))[::LEFT_OUT_EVERY]
    )
    return fit_prices(works, ratios), left_out


def error_of(estimates: Sequence[LeftOut]) -> float:
    """Mean absolute error of estimated milliseconds, as a share of the measured ones."""
    return statistics.fmean(abs(each.estimated_milliseconds / each.measured_milliseconds - 1) for each in estimates)


def kept_table(meter: Meter) -> LatencyTable | None:
    """The table of this device at this input size, or None when there is none that can be used. Its milliseconds are by
    the device's anchor of now, where this machine keeps that.
    """
    table = cached_record(_folder(meter) / TABLE, LatencyTable)
    now = anchor.read(anchor.path_of(device_key.key_of_anchor(meter.environment, meter.target, meter.size)))
    return table if table is None or now is None else table.by_anchor(now.milliseconds)


def read_samples(meter: Meter) -> list[MeasuredNetwork]:
    """The last measurement on this device of each network with so many classes, from the oldest to the newest."""
    return _read(meter, SAMPLES, lambda line: strict.parse(line, MeasuredNetwork, SAMPLES))


def read_refused(meter: Meter) -> list[RefusedNetwork]:
    """The networks with so many classes that the target could not time."""
    return _read(meter, REFUSED, lambda line: strict.parse(line, RefusedNetwork, REFUSED))


def _read(meter: Meter, name: str, parse: Callable[[str], Kept]) -> list[Kept]:
    """The last line of each draw in a file; incomplete or invalid lines are skipped."""
    found: dict[int, Kept] = {}
    try:
        lines = (_folder(meter) / name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        with contextlib.suppress(UserError):
            kept = parse(line)  # JSON is YAML
            if kept.num_classes == meter.num_classes:
                found.pop(kept.index, None)
                found[kept.index] = kept
    return list(found.values())


def _drawn_now(meter: Meter, kept: Sequence[Kept]) -> list[tuple[Kept, Architecture]]:
    """Those of which the same network is drawn now, and the networks."""
    drawn = [(each, draw(each.index, meter.size, meter.num_classes)) for each in kept]
    return [(each, architecture) for each, architecture in drawn if each.key == architecture.key]


def _keep(meter: Meter, found: Sequence[MeasuredNetwork | RefusedNetwork]) -> None:
    folder = _folder(meter)
    try:
        for each in found:
            name = SAMPLES if isinstance(each, MeasuredNetwork) else REFUSED
            _add_line(folder / name, json.dumps(strict.plain(each)))
    except OSError as error:
        raise UserError(
            f"cannot keep what was measured in {folder} ({error.strerror}); free space there, or set XDG_CACHE_HOME "
            "to a folder that can be written"
        ) from None


def _add_line(file: Path, line: str) -> None:
    """At the end of a file, behind a line that a crash may have cut short."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read() != b"\n":
                line = f"\n{line}"
        lines.write(f"{line}\n".encode())


def _measure(meter: Meter, indices: Sequence[int]) -> tuple[list[MeasuredNetwork | RefusedNetwork], list[str]]:
    """What is kept of draws, and why of others nothing is."""
    drawn = [draw(index, meter.size, meter.num_classes) for index in indices]
    begun = time.monotonic()
    latencies = time_each(meter, drawn, within=SAMPLES_WITHIN)
    seconds = (time.monotonic() - begun) / len(drawn)
    found: list[MeasuredNetwork | RefusedNetwork] = []
    failed: list[str] = []
    for index, architecture, latency in zip(indices, drawn, latencies, strict=True):
        if isinstance(latency, Latency):
            found.append(
                MeasuredNetwork(
                    index=index,
                    key=architecture.key,
                    num_classes=meter.num_classes,
                    ratio=latency.ratio,
                    reference_milliseconds=latency.reference_milliseconds,
                    seconds=seconds,
                    flagged=bool(latency.flagged),
                )
            )
        elif is_refusal(latency):
            found.append(
                RefusedNetwork(index=index, key=architecture.key, num_classes=meter.num_classes, reason=str(latency))
            )
        else:
            failed.append(str(latency))
    return found, failed


def _folder(meter: Meter) -> Path:
    key = device_key.key_of(meter.environment, meter.size)
    return device_key.folder("tables") / device_key.name_of(key)
