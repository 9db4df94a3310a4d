"""How far do ratios to the reference wander on a machine that is left alone, and does the reference tell?

    python studies/latency/wandering.py record --seconds 200 --out studies/latency/wandering.csv
    python studies/latency/wandering.py report studies/latency/wandering.csv

One process, one thread of ONNX Runtime: networks take turns, five calls each between calls of the reference. A row of
the table is the medians of about seven seconds. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np

import space
from nas.latency import parse_target
from nas.latency.machine import device
from space.scale import scale_width

TARGET = "onnxruntime@cpu:1"
SIZE = (180, 240)
NETWORKS = (("ndnet45-ende", 0.94), ("fplnet", 0.27), ("swiftnet-mnv2", 0.4), ("erfnet", 0.6))
CALLS = 5
SMOOTHED = 24  # turns in a row of the table


def record(seconds: float, out: Path) -> None:
    """Take turns for so long, and write the medians."""
    target = parse_target(TARGET)
    device.pin(target)
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    from nas.latency.protocol.controls import milliseconds, warm_up
    from nas.latency.worker.session import Session, build

    session = Session(target, SIZE)
    reference, watch = session.controls.reference, session.controls.watch
    calls = {}
    for name, factor in NETWORKS:
        network = build(scale_width(space.load(name), factor), None, 11)
        calls[f"{name} x{factor}"] = session.runtime.prepare(network, session.image, target)
    for call in calls.values():
        warm_up(call, reference, watch)
    turns, begun = [], time.monotonic()
    while time.monotonic() - begun < seconds:
        turn = [time.monotonic() - begun]
        for call in calls.values():
            call()
            reference()
            pairs = [(milliseconds(call, watch), milliseconds(reference, watch)) for _ in range(CALLS)]
            turn += list(np.median(pairs, axis=0))
        turns.append(turn)
    whole = len(turns) // SMOOTHED
    medians = np.median(np.reshape(turns[: whole * SMOOTHED], (whole, SMOOTHED, -1)), axis=1)
    with out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["seconds", *(f"{name}{what}" for name in calls for what in ("", ", its reference"))])
        writer.writerows([[f"{value:.4f}" for value in row] for row in medians])


def report(table: Path) -> None:
    """Print how far each ratio wanders, and how it goes with the reference."""
    with table.open() as file:
        header, *rows = csv.reader(file)
    values = np.log(np.asarray(rows, dtype=np.float64)[:, 1:])
    print(f"{'network':22} {'ratio wanders':>14} {'reference':>10} {'correlation':>12} {'slope':>6}")
    for index, name in enumerate(header[1::2]):
        reference = values[:, 2 * index + 1]
        ratio = values[:, 2 * index] - reference
        slope, _ = np.polyfit(reference, ratio, 1)
        wanders, its = (f"{100 * series.std():.1f} %" for series in (ratio, reference))
        print(f"{name:22} {wanders:>14} {its:>10} {np.corrcoef(ratio, reference)[0, 1]:12.2f} {slope:6.2f}")


def main() -> None:
    """Record or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recorder = commands.add_parser("record")
    recorder.add_argument("--seconds", type=float, default=200.0)
    recorder.add_argument("--out", type=Path, required=True)
    commands.add_parser("report").add_argument("table", type=Path)
    options = parser.parse_args()
    if options.command == "record":
        record(options.seconds, options.out)
    else:
        report(options.table)


if __name__ == "__main__":
    main()
