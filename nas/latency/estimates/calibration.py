"""Calibration: a `LatencyTable` of a device, fitted to random networks measured on it, and the error of its estimates.

The networks are drawn from the whole space rather than from a study's, and scaled to between a twentieth and all of the
drawn width, since a search tries such widths. Measurements are kept line by line beside the table, in the folder
`tables` of the cache: an interrupted calibration resumes, a longer one adds to a shorter one, and the next one repeats
disturbed measurements but not networks that the target refuses. Every fourth network is left out of a first fit to
judge the table by; the table that is kept is fitted to all of them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
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
from nas.terminal import ProgressLine
from space import strict
from space.architecture import Architecture
from space.errors import UserError
from space.scale import scale_width
from space.search_space import Space

NETWORKS = 550
FEWEST = 20  # networks for a fit
TOGETHER = 4  # networks that take turns
SAMPLES_WITHIN = 0.03  # half of the 95 % interval of each latency, as a share of it
NARROWEST = 0.05  # width factor
MOST_MULTIPLY_ADDS = 70_000  # per pixel of the image; ERFNet has 56,000
MOST_DRAWS = 100  # attempts to draw a network that small, before the input counts as too small
LEFT_OUT_EVERY = 4  # every fourth network is left out of the fit
FEWER = 0.9  # a table fitted to less than this share of a kept table's networks does not replace it
TABLE, SAMPLES, REFUSED = "table.yaml", "samples.jsonl", "refused.jsonl"  # in the folder of the device


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A network drawn at random, as it is recorded."""

    index: int
    """Number of the draw."""
    key: str
    """Key of the architecture; the record is not used if the same number now draws another one."""
    num_classes: int | None = field(default=None, metadata=strict.LEFT_OUT_AT_DEFAULT)
    """Number of classes; records with another number, or of earlier versions without it, are not used."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork(Drawn):
    """A drawn network and its measurement.

    Raises: UserError when the ratio or the anchor is not positive.
    """

    ratio: float
    """Latency of the network over latency of the reference."""
    reference_milliseconds: float
    """The anchor: usual latency of the reference."""
    seconds: float
    """Duration of the measurement."""
    flagged: bool
    """Whether the machine was disturbed."""

    def __post_init__(self) -> None:
        if not min(self.ratio, self.reference_milliseconds) > 0:
            raise UserError(
                f"expected positive latencies, got {self.ratio} x {self.reference_milliseconds} ms; measure again"
            )


@dataclass(frozen=True, kw_only=True)
class RefusedNetwork(Drawn):
    """A drawn network that the target cannot time, although it can time others."""

    reason: str


Kept = TypeVar("Kept", bound=Drawn)


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A network that was left out of the fit, and its estimate by a table fitted to the others."""

    name: str
    measured_milliseconds: float
    estimated_milliseconds: float
    multiply_adds: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A table fitted to all networks, and estimates for left-out networks by a table fitted to the others."""

    table: LatencyTable
    left_out: tuple[LeftOut, ...]
    flagged: int
    """Number of measurements that were not used because the machine was disturbed."""
    refused: tuple[str, ...]
    """Reasons why the target cannot time some networks, which were left out."""
    better: LatencyTable | None
    """The kept table, which stays because it was fitted to more networks; None if `table` replaced it."""


def draw(index: int, size: tuple[int, int], num_classes: int) -> Architecture:
    """The network number `index` for input `size` (H, W): random from the whole space, with a random smaller width.

    Raises: UserError when the input is so small that no network is cheap enough for it.
    """
    chance = random.Random(f"calibration {index}")
    most = MOST_MULTIPLY_ADDS * size[0] * size[1]
    for _ in range(MOST_DRAWS):
        drawn = Space(size=size).sample(chance)
        architecture = scale_width(drawn, math.exp(chance.uniform(math.log(NARROWEST), 0.0)))
        while space.multiply_adds(architecture, size, num_classes) > most:
            narrower = scale_width(architecture, 0.7)
            if narrower == architecture:
                break  # it cannot become small enough: draw another
            architecture = narrower
        else:
            return architecture
    raise UserError(f"expected an input large enough for a network, got {size[0]}x{size[1]}; calibrate at a larger one")


def measure_networks(meter: Meter, networks: int, progress: ProgressLine) -> list[str]:
    """Measure those of the first `networks` draws that were not yet measured undisturbed or refused on this device, and
    keep the results; `progress` counts them. Returns the reasons why some could not be measured this time, for example
    lack of memory.

    Raises: UserError when the folder of tables cannot be written, or the target cannot time any network.
    """
    undisturbed = [sample for sample in read_samples(meter) if not sample.flagged]
    known = {record.index for record, _ in _drawn_now(meter, [*undisturbed, *read_refused(meter)])}
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

    Raises: UserError when too few networks were measured.
    """
    kept = _drawn_now(meter, read_samples(meter))
    used = [(sample, architecture) for sample, architecture in kept if not sample.flagged]
    if len(used) < FEWEST:
        raise UserError(
            f"expected at least {FEWEST} undisturbed measurements to fit a table to, got {len(used)}; measure more "
            "networks, with the machine left alone"
        )
    anchored = used[-1][0].reference_milliseconds  # of the newest sample: older ones may use an earlier anchor
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
    before = cached_record(_folder(meter) / TABLE, LatencyTable) or _of_another_host(meter)
    better = before if before is not None and table.networks < FEWER * before.networks else None
    if better is None:
        write_text(_folder(meter) / TABLE, strict.dump(table))
    refused = tuple(record.reason for record, _ in _drawn_now(meter, read_refused(meter)))
    return Calibration(table=table, left_out=left_out, flagged=len(kept) - len(used), refused=refused, better=better)


def fit_and_judge(
    measured: Sequence[tuple[MeasuredNetwork, Architecture]],
    size: tuple[int, int],
    num_classes: int,
    anchored: float,
) -> tuple[Prices, tuple[LeftOut, ...]]:
    """Prices of work fitted to all networks that were measured at input `size` (height, width), as shares of the
    reference's latency; and every fourth of these networks with its estimate by a fit to the others, in milliseconds
    on a device where the reference takes `anchored` milliseconds.
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
    """Mean absolute error of estimates, as a share of the measured latency."""
    return statistics.fmean(abs(each.estimated_milliseconds / each.measured_milliseconds - 1) for each in estimates)


def kept_table(meter: Meter) -> LatencyTable | None:
    """The table of this device at this input size; None if there is no usable one.

    If there is none under this host's name, a table of the same device on a host with another name is used, such as an
    earlier container. Milliseconds use the device's current anchor, if this machine has it.
    """
    table = cached_record(_folder(meter) / TABLE, LatencyTable) or _of_another_host(meter)
    now = anchor.read(anchor.path_of(device_key.key_of_anchor(meter.environment, meter.target, meter.size)))
    return table if table is None or now is None else table.by_anchor(now.milliseconds)


def _of_another_host(meter: Meter) -> LatencyTable | None:
    """A table of the same device, made on a host with another name; of several, the one fitted to most networks."""
    key = device_key.key_but_host(meter.environment, meter.size)
    try:
        files = [folder / TABLE for folder in sorted(device_key.folder("tables").iterdir())]
    except OSError:  # nothing is kept
        return None
    tables = [table for table in (cached_record(file, LatencyTable) for file in files) if table is not None]
    alike = [each for each in tables if device_key.key_but_host(each.environment, (each.height, each.width)) == key]
    return max(alike, key=lambda table: table.networks, default=None)


def words_of_host(table: LatencyTable, environment: Mapping[str, str]) -> str:
    """A note on a table that was made on another host than that of `environment`; empty for the same host."""
    host = table.environment.get("host")
    if host in (None, environment.get("host")):
        return ""
    return (
        f"the latency table was made on host {host}, with the same processor, cores and versions; `nas measure "
        "--calibrate` makes one on this host"
    )


def read_samples(meter: Meter) -> list[MeasuredNetwork]:
    """The last measurement on this device of each network with the meter's number of classes, oldest first."""
    return _read(meter, SAMPLES, lambda line: strict.parse(line, MeasuredNetwork, SAMPLES))


def read_refused(meter: Meter) -> list[RefusedNetwork]:
    """The networks with the meter's number of classes that the target could not time."""
    return _read(meter, REFUSED, lambda line: strict.parse(line, RefusedNetwork, REFUSED))


def _read(meter: Meter, name: str, parse: Callable[[str], Kept]) -> list[Kept]:
    """The last record of each draw in a file; incomplete and invalid lines are skipped."""
    found: dict[int, Kept] = {}
    try:
        lines = (_folder(meter) / name).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        with contextlib.suppress(UserError):
            record = parse(line)  # JSON is YAML
            if record.num_classes == meter.num_classes:
                found.pop(record.index, None)
                found[record.index] = record
    return list(found.values())


def _drawn_now(meter: Meter, kept: Sequence[Kept]) -> list[tuple[Kept, Architecture]]:
    """The records whose number still draws the same network, with these networks."""
    drawn = [(record, draw(record.index, meter.size, meter.num_classes)) for record in kept]
    return [(record, architecture) for record, architecture in drawn if record.key == architecture.key]


def _keep(meter: Meter, found: Sequence[MeasuredNetwork | RefusedNetwork]) -> None:
    folder = _folder(meter)
    try:
        for record in found:
            name = SAMPLES if isinstance(record, MeasuredNetwork) else REFUSED
            _add_line(folder / name, json.dumps(strict.plain(record)))
    except OSError as error:
        raise UserError(
            f"cannot keep measurements in {folder} ({error.strerror}); make room there, or set XDG_CACHE_HOME "
            "to a folder that can be written to"
        ) from None


def _add_line(file: Path, line: str) -> None:
    """Append a line to a file whose last line a crash may have cut short."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as lines:
        if lines.tell():
            lines.seek(-1, os.SEEK_END)
            if lines.read() != b"\n":
                line = f"\n{line}"
        lines.write(f"{line}\n".encode())


def _measure(meter: Meter, indices: Sequence[int]) -> tuple[list[MeasuredNetwork | RefusedNetwork], list[str]]:
    """Records to keep of some draws, and the reasons why others have none."""
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
