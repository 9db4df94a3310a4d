"""Does a latency repeat? Fresh measuring processes, one after the other, on a quiet machine and beside a busy core.

    python studies/latency/repeatability.py --out studies/latency/repeatability.csv

writes a row per process and prints, per network and number of threads, the median of the ratios to the reference
network, the largest deviation from it, and how many of the loaded runs are within 5 % of the quiet median or flagged.
Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import space
from nas.latency import Meter, parse_target
from nas.latency.record import Latency

COLUMNS = (
    "network", "target", "load", "repeat", "ratio", "ratio_low", "ratio_high", "p50_milliseconds",
    "raw_p50_milliseconds", "samples", "set_aside", "seconds", "flagged",
)  # fmt: skip


@contextlib.contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Another process that computes without pause."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Measure everything, and say how far repeats are apart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["erfnet", "fplnet", "swiftnet-mnv2"])
    parser.add_argument("--targets", nargs="+", default=["onnxruntime@cpu:1", "onnxruntime@cpu:2"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--loaded-repeats", type=int, default=3)
    parser.add_argument("--input", default="180x240")
    options = parser.parse_args()
    height, width = map(int, options.input.split("x"))

    found: dict[tuple[str, str, str], list[Latency]] = {}
    with options.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for load, repeats in (("quiet", options.repeats), ("one core busy", options.loaded_repeats)):
            for repeat in range(repeats):  # rounds, so that a network's repeats are minutes apart
                for target in options.targets:
                    for name in options.networks:
                        start = time.monotonic()
                        with busy_core(load != "quiet"), Meter(parse_target(target), (height, width), 11) as meter:
                            one = meter.measure(space.load(name))
                        found.setdefault((name, target, load), []).append(one)
                        numbers = [
                            one.ratio,
                            one.ratio_low,
                            one.ratio_high,
                            one.p50_milliseconds,
                            one.raw_p50_milliseconds,
                        ]
                        row = [name, target, load, repeat, *(f"{number:.4f}" for number in numbers)]
                        seconds = f"{time.monotonic() - start:.1f}"
                        writer.writerow([*row, one.samples, one.set_aside, seconds, "; ".join(one.flagged)])
                        file.flush()
    for (name, target, load), latencies in found.items():
        quiet = statistics.median(one.ratio for one in found[name, target, "quiet"])
        away = [abs(one.ratio / quiet - 1) for one in latencies]
        flagged = sum(bool(one.flagged) for one in latencies)
        honest = sum(bool(one.flagged) or distance <= 0.05 for one, distance in zip(latencies, away, strict=True))
        print(
            f"{name:16} {target:18} {load:14} median {quiet:6.3f}  farthest {max(away):6.1%}  "
            f"within 3 %: {sum(distance <= 0.03 for distance in away)}/{len(away)}  flagged {flagged}  "
            f"within 5 % or flagged: {honest}/{len(away)}"
        )


if __name__ == "__main__":
    main()
