"""Calibration: a `LatencyTable` of a device from random networks measured on it, and how well it estimates others.

The networks are drawn from the whole space, not from a study's, and at widths from a twentieth of what was drawn to all
of it, as a search tries them. What was measured is kept line by line beside the table, in the folder `tables` of the
cache, so that an interrupted calibration goes on where it was, a longer one adds to a shorter one, and the next one
measures again what was disturbed. Every fourth network is left out of the fit to judge the table by; the table that is
kept is fitted to all of them.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import space
from nas.latency.estimates.prices import fit_prices
from nas.latency.estimates.table import LatencyTable
from nas.latency.estimates.work import work_of
from nas.latency.machine import device_key
from nas.latency.meter import Meter
from nas.latency.record import Latency
from nas.storage.files import write_text
from nas.storage.records import cached_record
from nas.terminal import Progress
from space import strict
from space.architecture import Architecture
from space.errors import TargetError, UserError
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


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """One measured network: the draw that it is, and what came out.

    Raises: UserError when the ratio or the anchor is not positive.
    """

    index: int
    """Of the draw."""
    key: str
    """Of the architecture: a draw that has changed since is not used."""
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


def measure_networks(meter: Meter, networks: int, progress: Progress) -> None:
    """Measure the first `networks` draws that have not been measured undisturbed on this device, and keep the results;
    `progress` hears of them.

    Raises: UserError when the folder of tables cannot be written.
    """
    known = {sample.index for sample in read_samples(meter) if not sample.flagged}
    missing = [index for index in range(networks) if index not in known]
    file = _folder(meter) / "samples.jsonl"
    with progress.over("measured", networks, unit="networks", done=networks - len(missing)):
        for start in range(0, len(missing), TOGETHER):
            indices = missing[start : start + TOGETHER]
            lines = [json.dumps(strict.plain(sample)) for sample in _measure(meter, indices)]
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("a", encoding="utf-8") as kept:
                    kept.write("".join(f"{line}\n" for line in lines))
            except OSError as error:
                raise UserError(
                    f"cannot keep what was measured in {file.parent} ({error.strerror}); free space there, or set "
                    "XDG_CACHE_HOME to a folder that can be written"
                ) from None
            progress.count(len(indices))


def calibrate(meter: Meter) -> Calibration:
    """Fit a table to all networks measured on this device, keep it, and judge it.

    Raises: UserError when there are too few.
    """
    samples = [sample for sample in read_samples(meter) if not sample.flagged]
    flagged = len(read_samples(meter)) - len(samples)
    drawn = [draw(sample.index, meter.size, meter.num_classes) for sample in samples]
    used = [pair for pair in zip(samples, drawn, strict=True) if pair[0].key == pair[1].key]
    if len(used) < FEWEST:
        raise UserError(
            f"expected at least {FEWEST} undisturbed measurements to fit a table to, got {len(used)}; measure more "
            "networks, with the machine left alone"
        )
    works = [work_of(architecture, meter.size, meter.num_classes) for _, architecture in used]
    ratios = [sample.ratio for sample, _ in used]
    inside = [place for place in range(len(used)) if place % LEFT_OUT_EVERY]
    judge = fit_prices([works[place] for place in inside], [ratios[place] for place in inside])
    anchored = used[-1][0].reference_milliseconds
    left_out = tuple(
        LeftOut(
            name=f"draw {sample.index}",
            measured_milliseconds=sample.ratio * anchored,
            estimated_milliseconds=judge.sum(works[place]) * anchored,
            multiply_adds=space.multiply_adds(architecture, meter.size, meter.num_classes),
            parameters=space.parameters(architecture, meter.num_classes),
        )
        for place, (sample, architecture) in enumerate(used)
        if place % LEFT_OUT_EVERY == 0
    )
    prices = fit_prices(works, ratios)
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
    )
    write_text(_folder(meter) / "table.yaml", strict.dump(table))
    return Calibration(table=table, left_out=left_out, flagged=flagged)


def error_of(estimates: Sequence[LeftOut]) -> float:
    """Mean absolute error of estimated milliseconds, as a share of the measured ones."""
    return statistics.fmean(abs(each.estimated_milliseconds / each.measured_milliseconds - 1) for each in estimates)


def kept_table(meter: Meter) -> LatencyTable | None:
    """The table of this device at this input size, or None when there is none that can be used."""
    return cached_record(_folder(meter) / "table.yaml", LatencyTable)


def read_samples(meter: Meter) -> list[MeasuredNetwork]:
    """Each network's last measurement on this device so far; lines that are no whole sample are left out."""
    found: dict[int, MeasuredNetwork] = {}
    file = _folder(meter) / "samples.jsonl"
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        try:
            sample = strict.parse(line, MeasuredNetwork, str(file))  # JSON is YAML
        except UserError:
            continue
        found[sample.index] = sample
    return [found[index] for index in sorted(found)]


def _measure(meter: Meter, indices: Sequence[int]) -> list[MeasuredNetwork]:
    drawn = {index: draw(index, meter.size, meter.num_classes) for index in indices}
    begun = time.monotonic()
    try:
        latencies: list[Latency | None] = list(meter.measure_together(list(drawn.values()), within=SAMPLES_WITHIN))
    except TargetError:  # one of them is not the same network on this target
        latencies = [_measure_one(meter, architecture) for architecture in drawn.values()]
    seconds = (time.monotonic() - begun) / len(drawn)
    return [
        MeasuredNetwork(
            index=index,
            key=architecture.key,
            ratio=latency.ratio,
            reference_milliseconds=latency.reference_milliseconds,
            seconds=seconds,
            flagged=bool(latency.flagged),
        )
        for (index, architecture), latency in zip(drawn.items(), latencies, strict=True)
        if latency is not None
    ]


def _measure_one(meter: Meter, architecture: Architecture) -> Latency | None:
    try:
        return meter.measure(architecture, within=SAMPLES_WITHIN)
    except TargetError:
        return None


def _folder(meter: Meter) -> Path:
    key = device_key.key_of(meter.environment, meter.size)
    return device_key.folder("tables") / device_key.name_of(key)
